"""The one checker of histories: what a ledger must not show, whatever was broken meanwhile."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

from tests.faults.ledger import Entry


@dataclass(frozen=True)
class Run:
    """A body from its beginning to its end; without ``has_ended`` it broke, or was cut off."""

    item: str
    lane: str
    process: str
    began: float
    until: float
    has_ended: bool


class History:
    """What a ledger tells about a run of the whole system.

    ``committed`` are the items that the database itself knows to be committed, from rows written
    in the same transactions; without it the producers' word counts. ``lease`` (seconds) is how long
    a process may be held before somebody else may run what it had.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        committed: Iterable[str] | None = None,
        lease: float = math.inf,
    ) -> None:
        self.entries = sorted(entries, key=lambda entry: entry.at)
        told = {entry.item for entry in self.entries if entry.what == "committed"}
        self.committed = told if committed is None else set(committed)
        self.lease = lease

    def problems(self, repeats_allowed: int = 0) -> list[str]:
        """Return every broken promise in words; none if all is well."""
        repeats = sum(self.repeated().values())
        return [
            *(f"lost: {item} was committed and never ended" for item in sorted(self.lost())),
            *(f"never committed, and began: {item}" for item in sorted(self.ghosts())),
            *self.disorder(),
            *(
                [f"{repeats} repeated, {repeats_allowed} allowed: {dict(self.repeated())}"]
                if repeats > repeats_allowed
                else []
            ),
        ]

    def disorder(self) -> list[str]:
        """Return the overlaps and inversions in words."""
        return [
            *(f"at once in lane {a.lane}: {_told(a)} and {_told(b)}" for a, b in self.overlaps()),
            *(f"out of order in {a.lane}: {_told(a)} after {_told(b)}" for a, b in self.inverted()),
        ]

    def lost(self) -> set[str]:
        """Return what was committed and never ran to its end."""
        return self.committed - {run.item for run in self.runs if run.has_ended}

    def ghosts(self) -> set[str]:
        """Return what began though it was never committed."""
        return {run.item for run in self.runs} - self.committed

    def repeated(self) -> Counter[str]:
        """Return how often each item ended after it had ended."""
        ends = Counter(run.item for run in self.runs if run.has_ended)
        return Counter({item: number - 1 for item, number in ends.items() if number > 1})

    def overlaps(self) -> Iterator[tuple[Run, Run]]:
        """Yield runs of one lane that overlapped, though nobody was held past the lease."""
        for runs in self._by_lane.values():
            latest = runs[0]
            for run in runs[1:]:
                if run.began < latest.until and not (self._was_held(run) or self._was_held(latest)):
                    yield latest, run
                latest = max(latest, run, key=lambda one: one.until)

    def inverted(self) -> Iterator[tuple[Run, Run]]:
        """Yield (a run, an earlier run) where the first was committed before the other existed.

        Of what was committed first every run, repeated ones too, has to begin before the first run
        of what came later. Runs of a process that was held past the lease don't count.
        """
        for runs in self._by_lane.values():
            counted = [run for run in runs if not self._was_held(run)]
            by_commit = sorted(
                ((self.moment("committed", run.item), run) for run in counted), key=_moment_of
            )
            moments = [moment for moment, _ in by_commit]
            last_begun = list(accumulate((run for _, run in by_commit), _whoever_began_later))
            for first in _first_of_each(counted):
                before = bisect_left(moments, self.moment("intended", first.item))
                if before and last_begun[before - 1].began > first.began:
                    yield last_begun[before - 1], first

    @cached_property
    def runs(self) -> list[Run]:
        """All bodies, by their beginning."""
        by_process = defaultdict(list)
        for entry in self.entries:
            if entry.what in ("began", "ended", "broke", "gone"):
                by_process[entry.process].append(entry)
        found = [run for entries in by_process.values() for run in _runs_of(entries)]
        return sorted(found, key=lambda run: run.began)

    def neighbours(self, run: Run) -> tuple[Run | None, Run | None]:
        """Return what the same process ran before and after this run."""
        runs = self._by_process[run.process]
        place = bisect_left(runs, run.began, key=lambda one: one.began)
        before = runs[place - 1] if place else None
        after = runs[place + 1] if place + 1 < len(runs) else None
        return before, after

    def moment(self, what: str, item: str) -> float:
        """Return when it was said of the item; a commit that nobody saw return comes last."""
        return self._moments.get((what, item), math.inf if what == "committed" else -math.inf)

    @cached_property
    def _by_process(self) -> dict[str, list[Run]]:
        found = defaultdict(list)
        for run in self.runs:
            found[run.process].append(run)
        return found

    @cached_property
    def _by_lane(self) -> dict[str, list[Run]]:
        ordered = sorted((run for run in self.runs if run.lane), key=lambda run: run.lane)
        return {lane: list(runs) for lane, runs in groupby(ordered, key=lambda run: run.lane)}

    @cached_property
    def _moments(self) -> dict[tuple[str, str], float]:
        return {(entry.what, entry.item): entry.at for entry in reversed(self.entries)}

    @cached_property
    def _held(self) -> dict[str, list[tuple[float, float]]]:
        """When each process was held for longer than the lease."""
        found = defaultdict(list)
        since: dict[str, float] = {}
        for entry in self.entries:
            if entry.what == "held":
                since.setdefault(entry.process, entry.at)
            elif entry.what == "released" and entry.process in since:
                found[entry.process].append((since.pop(entry.process), entry.at))
        for process, moment in since.items():
            found[process].append((moment, math.inf))
        return {
            process: [(start, end) for start, end in spans if end - start >= self.lease]
            for process, spans in found.items()
        }

    def _was_held(self, run: Run) -> bool:
        spans = self._held.get(run.process, [])
        return any(start < run.until and run.began < end for start, end in spans)


def _runs_of(entries: list[Entry]) -> Iterator[Run]:
    """Yield the runs of one process, which does one thing after another."""
    entries_and_next = zip(entries, [*entries[1:], None], strict=True)
    for entry, following in entries_and_next:
        if entry.what != "began":
            continue
        until = entry.at if following is None else following.at
        has_ended = (
            following is not None and following.what == "ended" and following.item == entry.item
        )
        yield Run(entry.item, entry.lane, entry.process, entry.at, until, has_ended)


def _first_of_each(runs: list[Run]) -> list[Run]:
    """Return the first run of each item; ``runs`` are by their beginning."""
    return list({run.item: run for run in reversed(runs)}.values())


def _whoever_began_later(one: Run, other: Run) -> Run:
    return max(one, other, key=lambda run: run.began)


def _moment_of(pair: tuple[float, Any]) -> float:
    return pair[0]


def _told(run: Run) -> str:
    return f"{run.item} ({run.began:.3f} to {run.until:.3f} in process {run.process})"
