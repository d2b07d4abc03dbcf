"""The relay: which event is next, lane by lane and for the unordered ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from parviraptor_celery.drains import Budget, Report, drain, drain_lanes
from parviraptor_celery.lane_feed import LaneFeed
from parviraptor_celery.pool_feed import PoolFeed
from parviraptor_celery.statements import database_time
from parviraptor_celery.unreadable import claiming

from . import barriers, batches, execution, registry
from .barriers import Barrier
from .batches import BatchRun
from .conf import settings
from .execution import Run
from .models import Event
from .outcomes import Published
from .states import EventStatus

POOL_BATCH = 10
MESSAGE_BATCH = 500
BATCH_BYTES = 16 * 1024 * 1024
"""What the bodies of a batch should take in memory at most; a multiple of it is in use."""

UNUSED = ("created_at", "modified_at", "sent_at", "lease_until", "leased_by", "running_lane")
"""Columns of a waiting event that publishing it needs not; reading times takes time."""

SQLITE_TICK = timedelta(milliseconds=1)
"""SQLite compares times as texts, and its own are shorter than Python's."""

WRITER_PAUSE = timedelta(seconds=1)


def nudge_budget() -> Budget:
    """Return what one task of the relay may spend."""
    return Budget(settings.RELAY_ROWS, settings.RELAY_SECONDS)


def relay_lanes(
    using: str, lanes: list[str], budget: Budget, *, await_writers: bool = True
) -> Report:
    """Publish what is due in ``lanes``, each in its order.

    The report pauses a lane that an open transaction holds, if ``await_writers``.
    """
    feeds: dict[str, EventLaneFeed] = {}

    def make_feed(lane: str) -> EventLaneFeed:
        feeds[lane] = EventLaneFeed(Event.rows(using), lane)
        return feeds[lane]

    report = drain_lanes(make_feed, lanes, budget)
    for lane, feed in feeds.items():
        if feed.is_held_by_a_writer and await_writers:
            report.pause(lane, WRITER_PAUSE)
    return report


def relay_pool(
    using: str, budget: Budget, stream: str | None = None, *, until: datetime | None = None
) -> Report:
    """Publish the unordered events that are due, or were at the moment ``until``.

    No event is tried twice: what is put back is due later than this began.
    """
    report = Report()
    rows = Event.rows(using).of_stream(stream).due_at(until or database_time(using))
    drain(EventPoolFeed(rows, POOL_BATCH, budget), budget, report)
    return report


class _RunsEvents:
    def run(self, event: Event) -> Run:
        return execution.run(event, by_relay=True)

    def announce(self, run: Run, report: Report) -> None:
        run.announce()
        if run.pause is not None:
            report.pause(run.row.lane, run.pause)


class EventLaneFeed(_RunsEvents, LaneFeed):
    """The events of one stream and key; an uncommitted writer or a dead letter holds them."""

    def __init__(self, rows: Any, lane: str) -> None:
        super().__init__(rows, lane)
        self.barrier = Barrier(rows, lane)
        self.is_held_by_a_writer = False

    def candidate(self) -> Any:
        return self._candidate(barriers.PATIENCE_SECONDS)

    def candidate_at_once(self) -> Any:
        return self._candidate(0)

    def _candidate(self, patience: float) -> Any:
        """Return what is next, after waiting ``patience`` seconds at most for each writer."""
        self.is_held_by_a_writer = False
        head = self.rows.candidate(self.lane, EventStatus.WAITING)
        while head is not None and not self._admits(head, patience):
            seen, head = head, self.rows.candidate(self.lane, EventStatus.WAITING)
            if head is not None and head.pk == seen.pk:
                self.is_held_by_a_writer = True
                return None
        return head if head is not None and head.is_due else None

    def _admits(self, head: Any, patience: float) -> bool:
        with claiming(Event, head):  # whose lane may be none
            return self.barrier.admits(head, patience)


class EventPoolFeed(_RunsEvents, PoolFeed):
    """The events without order whose hook failed or died, and those that are due at last.

    Goes through them by their due time. Those of one function that publishes many at a time form
    a batch; of others a few are leased at once and published one by one; one that failed before
    is leased alone, since it may be what kills its workers.
    """

    def __init__(self, rows: Any, batch: int, budget: Budget) -> None:
        super().__init__(rows, batch)
        self.budget, self.look = budget, batch
        self.floor: datetime | None = None
        """Nothing that is due before this is left, so far as we know."""

    def run(self, row: Any) -> Any:
        if isinstance(row, list):
            runs = [Run(event, Published(), by_relay=True, payload={}) for event in row]
            return batches.run(runs, self.using)
        return super().run(row)

    def settle(self, run: Any, *, claim_next: bool) -> Any:
        if isinstance(run, BatchRun):
            run.settle()
            return None
        return super().settle(run, claim_next=claim_next)

    def announce(self, run: Any, report: Report) -> None:
        if not isinstance(run, BatchRun):
            super().announce(run, report)
            return
        run.announce()
        for pause in {one.pause for one in run.runs if one.pause is not None}:
            report.pause(None, pause)

    def close(self) -> None:
        """Give back what was not begun, due as before: its round still takes it."""
        while self.claimed:
            event = self.claimed.pop(0)
            event.put_back(run_after=event.run_after)

    def take_next(self) -> Any:
        if self.claimed and registry.goes_by_the_batch(self.claimed[0].name):
            batch, self.claimed = self.claimed, []
            return batch
        return super().take_next()

    def choose(self) -> list[Event]:
        """Return events to lease: the first that is due, and what goes with it.

        Behind what was published there are dead entries in the index, which each look from the
        start would have to pass; so this one goes on where the last one was.
        """
        rows = self.rows
        if self.floor is not None:
            rows = rows.filter(run_after__gte=self.floor)
        look = int(min(self.look, max(self.budget.rows, 1)))
        found = rows.defer(*UNUSED).read_unlocked(look)
        if not found:
            is_done, self.floor = self.floor is None, None
            return [] if is_done else self.choose()
        self.floor = found[0].run_after - SQLITE_TICK
        return self._together_with_first(found)

    def next_apart(self) -> list[Any]:
        return self.rows.apart(self.batch)

    def _together_with_first(self, found: list[Event]) -> list[Event]:
        """Return the first of ``found`` and what goes with it; one that failed goes alone.

        It may be what kills its worker, or what makes a pipeline repeat its neighbours.
        """
        first = found[0]
        goes_by_the_batch = registry.goes_by_the_batch(first.name)
        self.look = _most_like(found) if goes_by_the_batch else self.batch
        if first.error_count:
            return [first]
        if goes_by_the_batch:
            return [event for event in found if event.name == first.name and not event.error_count]
        return list(takewhile(self._may_go_along, found[: self.batch]))

    def _may_go_along(self, event: Event) -> bool:
        return not (event.error_count or registry.goes_by_the_batch(event.name))


def _most_like(found: list[Event]) -> int:
    """Return how many messages the next batch may have, if they are as large as these."""
    largest = max(len(event.body) for event in found)
    return min(MESSAGE_BATCH, max(1, BATCH_BYTES // max(largest, 1)))
