"""What the database knows at the end of a run."""

from __future__ import annotations

from typing import Any

from django.db.models import Sum

from jaiminho_celery.models import Event
from tests.soak.project import models
from tests.soak.verdict import Evidence

QUEUES: dict[str, Any] = {
    "lane": models.LaneJob,
    "free": models.FreeJob,
    "atomic": models.AtomicJob,
    "new": models.NewJob,
}


def gather() -> Evidence:
    """Read it all from the database."""
    left = Event.objects.exclude(status=Event.Status.SENT)
    sums = (queue.objects.aggregate(sum=Sum("worker_deaths")) for queue in QUEUES.values())
    return Evidence(
        committed=frozenset(models.Fact.objects.values_list("item", flat=True)),
        jobs={
            item: status
            for queue in QUEUES.values()
            for item, status in queue.objects.values_list("item", "status")
        },
        events=[f"{row} {row.error_message}".rstrip() for row in left],
        counted=models.Counter.objects.aggregate(sum=Sum("value"))["sum"],
        worker_deaths=sum(found["sum"] or 0 for found in sums),
    )


def open_work() -> int:
    """Return how many rows are not at rest."""
    waiting = ("NEW", "PROCESSING", "DEFERRED")
    jobs = sum(queue.objects.filter(status__in=waiting).count() for queue in QUEUES.values())
    return jobs + Event.objects.filter(status__in=("WAITING", "PUBLISHING")).count()
