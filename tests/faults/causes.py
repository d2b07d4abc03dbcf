"""Which fault explains which repetition: a body may repeat only because of something done to it.

The rules, by what was repeated:

- *A body that a process runs* (a job, a decorated function). Of n runs that ended, n - 1 need a
  strike each: the process that ran it was killed, held past the lease, or had a connection to
  the database cut, close enough for its outcome to be unrecorded. A strike explains one run: the
  one that it hit, the last one before it, or the first one after it.
- *A Celery message*. What the broker itself hands out again, and says so, is not counted. Any
  other repetition needs a fault that may break a batch, between the writing of the message and
  the repetition; and all together are at most a batch per such fault.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.faults.history import History, Run
from tests.faults.ledger import Entry


@dataclass(frozen=True)
class Strike:
    """A fault that hit a process, from the moment before until it was over, or the process was."""

    process: str
    since: float
    until: float
    kind: str

    def reaches(self, run: Run, before: Run | None, after: Run | None) -> bool:
        """Say whether it may have kept the outcome of ``run`` from being recorded.

        ``before`` and ``after`` are the neighbours of the run in its process.
        """
        if run.began > self.until:
            return before is None or before.began <= self.until
        return after is None or after.began >= self.since


def strikes(entries: Iterable[Entry]) -> list[Strike]:
    """Return what hit the processes, in order."""
    ordered = sorted(entries, key=lambda entry: entry.at)
    over = defaultdict(list)
    for entry in ordered:
        if entry.what in ("gone", "released"):
            over[entry.process].append(entry.at)
    return [
        Strike(
            entry.process,
            entry.at,
            min((at for at in over[entry.process] if at >= entry.at), default=entry.at),
            entry.note,
        )
        for entry in ordered
        if entry.what == "struck"
    ]


def kind(item: str) -> str:
    """Return the kind of an item: its name up to the first dash."""
    return item.partition("-")[0]


def unexplained(history: History, kinds: Iterable[str]) -> list[str]:
    """Return the repetitions of bodies of these kinds that no strike explains, in words."""
    wanted = set(kinds)
    at_hand = defaultdict(list)
    for strike in strikes(history.entries):
        at_hand[strike.process].append(strike)
    needs: list[tuple[str, list[Strike]]] = []
    ended = {item: runs for item, runs in _ended_runs(history).items() if kind(item) in wanted}
    for item, runs in ended.items():
        reasons = [s for run in runs for s in at_hand[run.process] if _reaches(s, run, history)]
        needs += [(item, reasons)] * (len(runs) - 1)
    return [
        f"repeated without a reason: {item}: {_told(ended[item])}" for item in _unmatched(needs)
    ]


def unexplained_messages(
    history: History, message: str, batch: int, breaking: set[str], redelivered: str
) -> list[str]:
    """Return in words what repeated messages break the rule; ``message`` is their kind.

    ``breaking`` are the kinds of faults and strikes that may leave a batch unsettled;
    ``redelivered`` is the note of a run for which the broker takes the blame.
    """
    moments = [
        e.at for e in history.entries if e.what in ("fault", "struck") and e.note in breaking
    ]
    blamed = {
        (entry.process, entry.at)
        for entry in history.entries
        if entry.what == "began" and entry.note == redelivered
    }
    repeats = 0
    found = []
    for item, runs in _ended_runs(history).items():
        own = [run for run in runs if (run.process, run.began) not in blamed]
        if kind(item) != message or len(own) < 2:
            continue
        written = history.moment("intended", item)
        if any(written <= at <= own[-1].began for at in moments):
            repeats += len(own) - 1
        else:
            found.append(f"message repeated without a reason: {item}: {_told(own)}")
    if repeats > batch * len(moments):
        found.append(f"{repeats} messages repeated after {len(moments)} faults")
    return found


def _reaches(strike: Strike, run: Run, history: History) -> bool:
    return strike.reaches(run, *history.neighbours(run))


def _unmatched(needs: list[tuple[str, list[Strike]]]) -> list[str]:
    """Return the items that get no strike when as many as possible get one, each its own."""
    used: dict[Strike, int] = {}

    def match(need: int, tried: set[Strike]) -> bool:
        for strike in needs[need][1]:
            if strike in tried:
                continue
            tried.add(strike)
            if strike not in used or match(used[strike], tried):
                used[strike] = need
                return True
        return False

    return [needs[need][0] for need in range(len(needs)) if not match(need, set())]


def _ended_runs(history: History) -> dict[str, list[Run]]:
    found = defaultdict(list)
    for run in history.runs:
        if run.has_ended:
            found[run.item].append(run)
    return found


def _told(runs: list[Run]) -> str:
    return ", ".join(f"{run.began:.3f} to {run.until:.3f} in {run.process}" for run in runs)
