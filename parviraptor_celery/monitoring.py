"""Counts for people and for monitoring; nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count
from django.utils import timezone

from . import registry
from .models import AbstractJob
from .states import JobStatus

OPEN_STATES = (JobStatus.NEW, JobStatus.PROCESSING, JobStatus.DEFERRED, JobStatus.FAILED)


@dataclass(frozen=True)
class QueueHealth:
    """What is wrong with a queue, in rows."""

    name: str
    failed: int
    long_processing: int
    long_unprocessed: int

    @property
    def is_fine(self) -> bool:
        return not (self.failed or self.long_processing or self.long_unprocessed)

    def __str__(self) -> str:
        return (
            f"There are {self.failed} failed, {self.long_processing} long processing and "
            f"{self.long_unprocessed} long unprocessed {self.name}s."
        )


def health_of_all() -> list[QueueHealth]:
    """Return the health of every queue, over all of its databases."""
    return [health(queue) for queue in registry.all_queues()]


def health(queue: type[AbstractJob]) -> QueueHealth:
    """Count failed jobs, and those that have been processing or waiting for too long."""
    failed = processing = unprocessed = 0
    moment = timezone.now()
    long_ago = moment - timedelta(minutes=queue.MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN)
    too_old = moment - timedelta(minutes=queue.MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN)
    for using in registry.aliases_of(queue):
        rows = queue.rows(using)
        failed += rows.failed().count()
        processing += rows.processing_since(long_ago).count()
        unprocessed += rows.waiting().filter(creation_date__lt=too_old).count()
    return QueueHealth(queue.__name__, failed, processing, unprocessed)


def open_entries() -> list[tuple[type[AbstractJob], dict[str, int]]]:
    """Return for every queue how many of its jobs are in each open state."""
    return [(queue, _open_entries(queue)) for queue in registry.all_queues()]


def _open_entries(queue: type[AbstractJob]) -> dict[str, int]:
    counts = {str(status.value): 0 for status in OPEN_STATES}
    for using in registry.aliases_of(queue):
        states = queue.rows(using).filter(status__in=OPEN_STATES).order_by()
        for status, rows in states.values_list("status").annotate(Count("pk")):
            counts[status] += rows
    return counts
