"""Works a feed off, within a budget. Both apps use this module."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol


@dataclass
class Budget:
    """How much one task may do before it makes room for others: rows, and seconds."""

    rows: float
    seconds: float
    stop: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.seconds

    @classmethod
    def endless(cls, stop: Callable[[], bool] = lambda: False) -> Budget:
        """Return a budget that only ``stop`` ends."""
        return cls(float("inf"), float("inf"), stop)

    def part(self, rows: float, seconds: float) -> Budget:
        """Return a budget for a part of the work: no more than is left, nor than given here."""
        left = self._deadline - time.monotonic()
        return Budget(min(rows, self.rows), min(seconds, left), self.stop)

    def spend(self, rows: int) -> None:
        self.rows -= rows

    @property
    def is_spent(self) -> bool:
        return self.rows <= 0 or time.monotonic() >= self._deadline or self.stop()


@dataclass
class Report:
    """What was done: rows run, lanes that the budget left over, when what was put back is due."""

    rows: int = 0
    is_exhausted: bool = False
    left_over: list[str] = field(default_factory=list)
    pauses: dict[str | None, timedelta] = field(default_factory=dict)

    def pause(self, lane: str | None, pause: timedelta) -> None:
        self.pauses[lane] = min(pause, self.pauses.get(lane, pause))


class Feed(Protocol):
    """Where a drain gets its rows from, and how it runs one."""

    comes_back: bool
    """Whether it has more to do, which runs no row, and lets others take their turn first."""

    def first(self) -> Any:
        """Claim a row in a transaction of its own, or return None."""

    def run(self, row: Any) -> Any:
        """Run a claimed row and return how that went."""

    def settle(self, run: Any, *, claim_next: bool) -> Any:
        """Settle a run; if asked, claim what follows it in the same transaction."""

    def announce(self, run: Any, report: Report) -> None:
        """Tell about a settled run, outside of the transaction."""

    def close(self) -> None:
        """Give back what was claimed and not begun."""


def drain(feed: Feed, budget: Budget, report: Report) -> None:
    """Work off ``feed`` until it is empty or the budget is spent.

    After a settlement that found no successor the feed is asked once more, in a new
    transaction: a row that was inserted while the last one ran is seen only then.
    """
    if budget.is_spent:
        report.is_exhausted = True
        return
    try:
        row = feed.first()
        while row is not None:
            run = feed.run(row)
            budget.spend(run.size)
            report.rows += run.size
            report.is_exhausted = budget.is_spent
            row = feed.settle(run, claim_next=not report.is_exhausted)
            feed.announce(run, report)
            if row is None and not report.is_exhausted:
                row = feed.first()
    finally:
        feed.close()


def drain_lanes(make_feed: Callable[[str], Feed], lanes: list[str], budget: Budget) -> Report:
    """Work off ``lanes`` one after another; the report names those that the budget left over.

    A lane that comes back does so behind the others, and its turn counts as one row.
    """
    report, turns = Report(), deque(lanes)
    while turns:
        lane = turns.popleft()
        feed = make_feed(lane)
        report.is_exhausted = False
        drain(feed, budget, report)
        if report.is_exhausted:
            turns.appendleft(lane)
        elif feed.comes_back:
            turns.append(lane)
            budget.spend(1)
        if budget.is_spent:
            break
    report.left_over = list(turns)
    return report
