"""The relay: which event is next, lane by lane and for the unordered ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from parviraptor_celery.drains import Budget, Report, drain, drain_lanes
from parviraptor_celery.feeds import LaneFeed, PoolFeed

from . import barriers, execution
from .barriers import Barrier
from .conf import settings
from .execution import Run
from .models import Event
from .states import EventStatus

POOL_BATCH = 10
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


def relay_pool(using: str, budget: Budget, stream: str | None = None) -> Report:
    """Publish the unordered events that are due."""
    report = Report()
    drain(EventPoolFeed(Event.rows(using).of_stream(stream), POOL_BATCH), budget, report)
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
        while head is not None and not self.barrier.admits(head, patience):
            seen, head = head, self.rows.candidate(self.lane, EventStatus.WAITING)
            if head is not None and head.pk == seen.pk:
                self.is_held_by_a_writer = True
                return None
        return head if head is not None and head.is_due else None


class EventPoolFeed(_RunsEvents, PoolFeed):
    """The events without order whose hook failed or died."""

    def candidates(self) -> list[tuple[Any, int]]:
        # An event that kills its worker must not take the same neighbours along each time.
        return [(self.rows.ready().filter(error_count=0), self.batch), (self.rows.ready(), 1)]
