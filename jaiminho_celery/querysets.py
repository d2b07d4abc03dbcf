"""Which events are which: the only place that filters events by state."""

from __future__ import annotations

from datetime import datetime

from django.db.models import OuterRef

from parviraptor_celery.leased import LeasedQuerySet

from .states import EventStatus


class EventQuerySet(LeasedQuerySet):
    """The rows of the outbox, by what can be done with them."""

    WAITING = EventStatus.WAITING
    LEASED = EventStatus.PUBLISHING

    def obstacles(self) -> EventQuerySet:
        """Dead letters: they hold the later events of their lane."""
        return self.filter(status=EventStatus.DEAD, lane=OuterRef("lane"))

    def unsent(self) -> EventQuerySet:
        """Everything that is still to be published, or to be decided by a person."""
        return self.exclude(status__in=(EventStatus.SENT, EventStatus.SKIPPED))

    def ready(self) -> EventQuerySet:
        """Unordered events that the relay publishes next."""
        return self._unordered().filter(error_count=0).order_by("lane", "id")

    def ready_again(self) -> EventQuerySet:
        """Unordered events that failed before, those first that have been due for longest."""
        return self._unordered().filter(error_count__gt=0).order_by("run_after", "id")

    def _unordered(self) -> EventQuerySet:
        return self.waiting().due().filter(lane__isnull=True)

    def dead(self) -> EventQuerySet:
        return self.filter(status=EventStatus.DEAD).order_by("id")

    def of_stream(self, stream: str | None) -> EventQuerySet:
        """Only the events of ``stream``; None means every stream."""
        return self if stream is None else self.filter(stream=stream)

    def sent_before(self, moment: datetime) -> EventQuerySet:
        return self.filter(status=EventStatus.SENT, sent_at__lte=moment)
