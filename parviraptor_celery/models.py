"""What users derive their queues from, and the tables of this app itself."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from .backoff import BackoffStrategy
from .factory import AbstractJobFactory
from .jobs import AbstractJob
from .lanes import LANE_LENGTH
from .states import FailurePolicy, JobStatus
from .ticks import AbstractTick

__all__ = [
    "AbstractJob",
    "AbstractJobFactory",
    "BackoffStrategy",
    "FailurePolicy",
    "JobStatus",
    "Pause",
    "Tick",
]


class Tick(AbstractTick):
    """When the queues were last swept, and where the next round of each starts."""

    class Meta(AbstractTick.Meta):
        pass


class Pause(models.Model):
    """A queue, or one lane of it, of which no job is claimed until it is resumed.

    The row is in the database of the jobs that it holds.
    """

    queue = models.CharField(max_length=150)
    """The label of the queue in lower case, as Django's ``label_lower``."""

    lane = models.CharField(max_length=LANE_LENGTH, blank=True, default="")
    """The lane; empty for the whole queue."""

    reason = models.CharField(max_length=200, blank=True, default="")
    paused_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["queue", "lane"], name="parviraptor_celery_pause_once"),
        )

    def __str__(self) -> str:
        return f"{self.queue} {self.lane}".rstrip()
