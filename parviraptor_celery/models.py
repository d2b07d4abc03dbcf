"""What users derive their queues from, and the one table of this app itself."""

from __future__ import annotations

from .backoff import BackoffStrategy
from .factory import AbstractJobFactory
from .jobs import AbstractJob
from .states import JobStatus
from .ticks import AbstractTick

__all__ = ["AbstractJob", "AbstractJobFactory", "BackoffStrategy", "JobStatus", "Tick"]


class Tick(AbstractTick):
    """When the queues were last swept, and where the next round of each starts."""

    class Meta(AbstractTick.Meta):
        pass
