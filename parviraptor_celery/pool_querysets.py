"""Which jobs of an independent queue are next: the most urgent that are due, while not paused."""

from __future__ import annotations

from typing import Any, Self

from django.db import connections
from django.db.models.expressions import Combinable

from . import pauses
from .clock import kept, now
from .leased import LeasedQuerySet
from .prepared import PreparedSelect, PreparedValues
from .states import JobStatus

SCHEDULED_LOOK = 500
"""Jobs with a due time that are compared by their priority; of more, those due first."""


class PoolQuerySet(LeasedQuerySet):
    """The waiting jobs of a queue in the order in which an independent one runs them."""

    WAITING = JobStatus.NEW
    LEASED = JobStatus.PROCESSING
    UNREAD = (
        *("creation_date", "modification_date", "lease_until", "begun_at"),  # times are dear
        *("running_lane", "waiting_key", "leased_by", "worker_deaths", "failed_by"),
        *("error_traceback", "progress_total", "progress_note"),
    )

    def variant(self) -> object:
        return pauses.can_be_made(self.db)

    def paused(self, lane: str | Combinable = "") -> pauses.Condition:
        """Return the condition that the queue is paused here, or this one lane of it.

        To annotate or to filter by. ``lane`` may be an expression; empty, it asks for the queue
        only.
        """
        return pauses.condition(self.model, self.db, lane)

    def at_once(self) -> Self:
        """Waiting jobs of an independent queue that have no due time, the most urgent first."""
        found = self._in_turn(run_after__isnull=True)
        return found.order_by(*self._turn())

    def come_due(self) -> Self:
        """Waiting jobs of an independent queue whose due time has come, the earliest first."""
        return self._in_turn(run_after__lte=now())

    def first_in_turn(self, limit: int) -> list[int]:
        """Return the first ids of ``at_once()``, also while the queue is paused."""
        return [pk for (pk,) in self.prepared_first_in_turn(limit).all()]

    def prepared_first_in_turn(self, limit: int) -> PreparedValues:
        """Return the query of ``first_in_turn()``."""
        return _first_in_turn(type(self), self.model, self.db, limit)

    def next_ids(self, limit: int) -> list[int]:
        """Return the ids of the jobs that an independent queue runs next, most urgent first.

        Of the jobs with a due time those are compared that came due first, ``SCHEDULED_LOOK`` of
        them: neither what isn't due nor a heap of what is has to be read.
        """
        due = list(self.come_due().values_list("priority", "id")[:SCHEDULED_LOOK])
        at_once = list(self.at_once().values_list("priority", "id")[:limit])
        urgent = sorted((*due, *at_once), key=lambda found: (-found[0], found[1]))
        return [pk for _, pk in urgent[:limit]]

    def has_ready(self) -> bool:
        """Return whether an independent queue has a job that is due, locked or not."""
        about = type(self), self.model, self.db, self.variant()
        return bool(self.first_in_turn(1) or _come_due(*about).all())

    def next_unlocked(self, limit: int) -> list[Any]:
        """Return the jobs that an independent queue runs next, locked, most urgent first."""
        about = type(self), self.model, self.db, self.variant()
        if not _come_due(*about).all():
            return _at_once_unlocked(*about, limit).all()
        wanted = self.filter(pk__in=self.next_ids(limit)).waiting().due()
        found = wanted.order_by("-priority", "id").read_unlocked(limit)
        # Somebody else may have them all at this moment: the next best, then.
        found = found or self.come_due().read_unlocked(limit)
        return found or self.at_once().read_unlocked(limit)

    def _turn(self) -> tuple[str, ...]:
        """Return the order of the index for jobs without a due time."""
        if connections[self.db].vendor == "mysql":
            return "-priority", "id"  # with run_after they would sort all of it
        return "run_after", "-priority", "id"

    def _in_turn(self, **when: Any) -> Self:
        """Waiting jobs of an independent queue in the order of their index; none while paused."""
        waiting = self.waiting().filter(~self.paused(), **when)
        return waiting.order_by("run_after", "-priority", "id")


@kept
def _come_due(kind: Any, model: Any, using: str, _variant: object) -> PreparedValues:
    return PreparedValues(kind(model, using=using).come_due().values("id")[:1])


@kept
def _at_once_unlocked(
    kind: Any, model: Any, using: str, _variant: object, limit: int
) -> PreparedSelect:
    rows = kind(model, using=using).at_once()
    return PreparedSelect(rows.defer(*kind.UNREAD).unlocked()[:limit])


@kept
def _first_in_turn(kind: Any, model: Any, using: str, limit: int) -> PreparedValues:
    rows = kind(model, using=using)
    first = rows.waiting().filter(run_after__isnull=True).order_by(*rows._turn())
    return PreparedValues(first.values("id")[:limit])
