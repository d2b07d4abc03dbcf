"""What these tests share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from parviraptor_celery.models import AbstractJobFactory
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob

PROCESS = "parviraptor_celery.process_jobs"
DISPATCH = "parviraptor_celery.dispatch_jobs"
CLEAN = "parviraptor_celery.clean_jobs"
QUEUES = (AtomicJob, FifoJob, FreeJob, LaneJob)
STATUSES = ["NEW", "PROCESSING", "PROCESSED", "SQUASHED", "FAILED", "IGNORED", "DEFERRED"]
RESTING = [status for status in STATUSES if status != "PROCESSING"]
REQUIRED = inspect.Parameter.empty

make_base_class = AbstractJobFactory.make_base_class

Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]


def parameters(function: Any) -> dict[str, Any]:
    """Return names and defaults; those that are given by name only have a star."""
    found = inspect.signature(function).parameters.values()
    stars = {inspect.Parameter.KEYWORD_ONLY: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return {f"{stars.get(one.kind, '')}{one.name}": one.default for one in found}


def statuses(queue: Any) -> list[str]:
    return list(queue.objects.order_by("pk").values_list("status", flat=True))


def only(queue: Any) -> Any:
    """Return the one job that there is."""
    return queue.objects.get()


@contextmanager
def eagerly(app: Celery) -> Iterator[None]:
    app.conf.task_always_eager = True
    try:
        yield
    finally:
        app.conf.task_always_eager = False


def fail(job: Any) -> None:
    raise LookupError
