"""What many tests of the queues say: run it, look at it, let it be due."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db.models import F
from django.dispatch import Signal

from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from parviraptor_celery.foreground import ForegroundWorker
from parviraptor_celery.models import AbstractJob


def work_off(queue: type[AbstractJob]) -> int:
    """Run everything that is due in `queue`; return the number of jobs run."""
    return ForegroundWorker(queue, threading.Event()).run_once()


def reloaded(job: AbstractJob) -> Any:
    """Return the row as it is in the database now."""
    return type(job).rows(job.alias).get(pk=job.pk)


def let_be_due(queue: type[AbstractJob]) -> None:
    """Let the pauses of all jobs be over."""
    queue.rows("default").update(run_after=None)


def runs(job: AbstractJob, **columns: Any) -> None:
    """Let ``job`` run elsewhere, as far as anybody can tell; ``columns`` has its lease."""
    row = type(job).rows(job.alias).filter(pk=job.pk)
    row.update(status="PROCESSING", running_lane=F("lane"), **columns)


def statuses(queue: type[AbstractJob]) -> list[str]:
    """Return the statuses of all jobs in the order of their ids."""
    return list(queue.rows("default").order_by("id").values_list("status", flat=True))


def run_one(queue: type[AbstractJob]) -> int:
    """Run one job of `queue` if one is due; return the number of jobs run."""
    budget = Budget(rows=1, seconds=float("inf"))
    if queue.dependent_fields is None:
        return run_pool(queue, "default", budget).rows
    lanes = queue.rows("default").exclude(status="PROCESSED").values_list("lane", flat=True)
    return run_lanes(queue, "default", sorted(set(lanes)), budget).rows


def pause_of(job: AbstractJob) -> timedelta:
    """Return how long the job was told to wait when its last run ended."""
    row = reloaded(job)
    pause: timedelta = row.run_after - row.modification_date
    return pause


@contextmanager
def received(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """Collect what a signal is sent with."""
    seen: list[dict[str, Any]] = []

    def receive(**kwargs: Any) -> None:
        seen.append(kwargs)

    signal.connect(receive)
    try:
        yield seen
    finally:
        signal.disconnect(receive)
