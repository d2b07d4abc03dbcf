"""What these tests share: queues, and workers elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob
from tests.unit.conftest import messages

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
IN_ORDER = pytest.mark.parametrize("queue", [FifoJob, LaneJob, AtomicJob])
QUEUES = pytest.mark.parametrize("queue", [FifoJob, LaneJob, AtomicJob, FreeJob])
DISPATCH = "parviraptor_celery.dispatch_jobs"
A_MOMENT = timedelta(milliseconds=100)
APP = Celery("contract", broker="memory://", set_as_current=False)
Bodies = Callable[..., list[int]]


def reloaded(job: Any) -> Any:
    return type(job).objects.get(pk=job.pk)


def statuses(queue: Any) -> list[str]:
    return list(queue.objects.order_by("pk").values_list("status", flat=True))


def kicks_of(app: Celery) -> list[tuple[str, dict[str, Any]]]:
    return [(one.headers["task"], one.payload[1]) for one in messages(app)]


def pause_of(job: Any) -> timedelta:
    row = reloaded(job)
    pause: timedelta = row.run_after - row.modification_date
    return pause
