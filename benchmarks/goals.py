"""What the project wants to reach, as ratios to peers of the same run."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from . import peers
from .results import Measurement, median

Case = tuple[str, str]
OUTBOXES = frozenset(peer.name for peer in peers.PEERS if peer.is_outbox) - {peers.OURS}
YARDSTICK = frozenset({"kombu"})
TWO = "two processes"


@dataclass(frozen=True)
class Goal:
    """Our figure divided by that of the nearest of `others`; it shall be `at_least`, or at most."""

    title: str
    workload: str
    figure: str
    others: frozenset[str]
    wanted: float
    at_least: bool = True
    ours: str | None = None
    """The label of our case; None if the workload has one of them only."""

    theirs: str | None = None
    """The label of the case to compare with; None: all that have as many processes as ours."""

    our_name: str = peers.OURS

    @property
    def against(self) -> str:
        """How the goal is called in the table."""
        return f"{self.title} ({self.ours})" if self.ours else self.title

    def compares_with(self, row: Measurement) -> bool:
        """Return whether this is one of the others: an outbox with as many processes, say."""
        if self.theirs is not None:
            return row.peer in self.others and row.label == self.theirs
        if row.peer in YARDSTICK or row.peer not in self.others:
            return row.peer in self.others
        return row.label.endswith(TWO) == (self.ours or "").endswith(TWO)

    def is_reached(self, ratio: float) -> bool:
        compare = operator.ge if self.at_least else operator.le
        return bool(compare(ratio, self.wanted))


OUTBOX_GOALS = (
    *(
        Goal(title, f"outbox-relay-{broker}", "durable_rate", others, wanted, ours=ours)
        for ours in ("events_relay", "events_relay, two processes")
        for title, broker, others, wanted in (
            ("kombu, one by one", "redis", YARDSTICK, 2),
            ("kombu, each confirmed", "rabbitmq", YARDSTICK, 4),
            ("nearest outbox", "redis", OUTBOXES, 5),
            ("nearest outbox", "rabbitmq", OUTBOXES, 5),
        )
    ),
    *(
        Goal(
            "nearest outbox",
            "outbox-send",
            "added_p50",
            OUTBOXES,
            0.5,
            at_least=False,
            ours=f"OutboxCelery, {broker}",
        )
        for broker in ("Redis", "RabbitMQ")
    ),
)


def ratio(goal: Goal, measurements: Sequence[Measurement]) -> tuple[float, Case] | None:
    """Return our figure by that of the nearest peer, and which peer that is.

    Compared are measurements of the same repetition, for the machine's speed changes meanwhile; the
    median of these ratios counts. None if either side is missing.
    """
    rows = [row for row in measurements if row.workload == goal.workload]
    ours = _by_repetition(
        (row for row in rows if row.peer == goal.our_name and goal.ours in (None, row.label)), goal
    )
    found: list[tuple[float, Case]] = []
    for case in dict.fromkeys(row.case for row in rows if goal.compares_with(row)):
        theirs = _by_repetition((row for row in rows if row.case == case), goal)
        shared = median(
            ours[at] / theirs[at] for at in ours.keys() & theirs.keys() if theirs[at] > 0
        )
        if shared is not None:
            found.append((shared, case))
    nearest: Callable[..., tuple[float, Case]] = min if goal.at_least else max
    return nearest(found) if found else None


def _by_repetition(rows: Iterable[Measurement], goal: Goal) -> dict[int, float]:
    """Return the figure for each repetition; a yardstick has no rows to settle, only a rate."""
    figures = {}
    for row in rows:
        figure = row.result.get(goal.figure)
        if figure is None and goal.figure == "durable_rate":
            figure = row.result.get("rate")
        if figure is not None:
            figures[row.repetition] = figure
    return figures
