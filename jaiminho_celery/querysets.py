"""Which events are which: the only place that filters events by state."""

from __future__ import annotations

from datetime import datetime

from django.db import connections
from django.db.models.functions import Length

from parviraptor_celery.leased import LeasedQuerySet

from .states import EventStatus


class EventQuerySet(LeasedQuerySet):
    """The rows of the outbox, by what can be done with them."""

    WAITING = EventStatus.WAITING
    LEASED = EventStatus.PUBLISHING

    def obstacles(self, lane: str) -> EventQuerySet:
        """Dead letters: they hold the later events of their lane."""
        return self._in_lane(lane, EventStatus.DEAD)

    def unsent(self) -> EventQuerySet:
        """Everything that is still to be published, or to be decided by a person."""
        return self.exclude(status__in=(EventStatus.SENT, EventStatus.SKIPPED))

    def unsigned(self) -> EventQuerySet:
        """What is still to be published and was written while SIGN_EVENTS was off."""
        return self.filter(status__in=(EventStatus.WAITING, EventStatus.PUBLISHING), signature="")

    def due_at(self, moment: datetime) -> EventQuerySet:
        """Unordered events that are due at ``moment``: those first that are due for longest."""
        without_lane = self.waiting().filter(lane__isnull=True)
        return without_lane.filter(run_after__lte=moment).order_by("run_after", "id")

    def dead(self) -> EventQuerySet:
        return self.filter(status=EventStatus.DEAD).order_by("id")

    def erase(self) -> int:
        """Delete the rows by one statement with these conditions; return how many there were.

        ``delete()`` would first read them and then go by their ids alone, without the fence, as
        soon as anybody connects a receiver for deletions.
        """
        return int(self._raw_delete(self.db))

    def equal_to(self, **texts: str) -> EventQuerySet:
        """Only the events whose columns equal ``texts`` to the letter.

        MySQL and MariaDB compare without regard to case and trailing blanks, unless by LIKE.
        """
        if connections[self.db].vendor != "mysql":
            return self.filter(**texts)
        rows = self.filter(**texts, **{f"{name}__startswith": texts[name] for name in texts})
        for name, text in texts.items():
            rows = rows.alias(**{f"{name}_length": Length(name)})
            rows = rows.filter(**{f"{name}_length": len(text)})
        return rows

    def of_stream(self, stream: str | None) -> EventQuerySet:
        """Only the events of ``stream``; None means every stream."""
        return self if stream is None else self.equal_to(stream=stream)

    def in_state_since(self, state: EventStatus, column: str, moment: datetime) -> EventQuerySet:
        """Events that came to rest in ``state`` no later than ``moment``, by ``column``."""
        return self.filter(status=state, **{f"{column}__lte": moment})
