"""Walks all schedules of a scenario with up to so many preemptions.

A *schedule* is who went on at each step. To switch from an actor that could go on costs one
preemption; to switch from one that waits for a lock, or is done, costs nothing. Most races need one
or two (Musuvathi and Qadeer, "Iterative context bounding for systematic testing of multithreaded
programs", 2007). Each play begins anew and follows a prefix; behind it the same actor goes on as
long as it can. Schedules with fewer preemptions come first, so the first failure is the simplest.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests import faults
from tests.faults.stage import Stage

MOST_STEPS = 500
NUMBER_KNOB = "FAULTS_PREEMPTIONS"
"""``FAULTS=wide`` allows every scenario one preemption more, ``FAULTS_PREEMPTIONS=3`` three."""


class Scenario(Protocol):
    """What the actors do, and what has to hold."""

    names: Sequence[str]
    using: str
    preemptions: int
    """How many are allowed, unless the knob says otherwise."""

    def arrange(self) -> Mapping[str, Callable[[], object]]:
        """Begin anew; return each actor's part."""

    def look(self, label: str) -> list[str]:
        """Return what is wrong after a step, of which ``label`` tells the kind."""

    def conclude(self, errors: Mapping[str, BaseException]) -> tuple[list[str], str]:
        """Let everything come to rest; return what is wrong then, and which kind of end it was."""


@dataclass(frozen=True)
class Choice:
    """A step: who went on, who could have, and how many preemptions there had been before."""

    chosen: str
    options: tuple[str, ...]
    before: str | None
    preemptions: int

    def cost_of(self, other: str) -> int:
        """Return how many preemptions there are if ``other`` goes on."""
        is_preempted = self.before in self.options and other != self.before
        return self.preemptions + is_preempted


@dataclass
class Play:
    """One schedule, as it was played."""

    choices: list[Choice] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    kind: str = ""
    waits: int = 0

    @property
    def schedule(self) -> str:
        return " ".join(choice.chosen for choice in self.choices)

    def told(self) -> str:
        """Return the problems, the schedule that shows them, and what happened at its steps."""
        steps = zip(self.choices, self.labels, strict=True)
        return "\n".join(
            [
                *self.problems,
                f"schedule: {self.schedule}",
                *(f"  {choice.chosen} {label}" for choice, label in steps),
            ]
        )


@dataclass
class Explored:
    """What an exploration met."""

    preemptions: int
    schedules: int = 0
    steps: int = 0
    waits: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind or 'one end'} {n}" for kind, n in sorted(self.kinds.items()))
        return (
            f"{self.schedules} schedules with up to {self.preemptions} preemptions, "
            f"{self.steps} steps, {self.waits} waits for a lock ({kinds})"
        )


class Diverged(AssertionError):
    """A schedule could not be followed a second time: something is not under control."""


def explore(scenario: Scenario) -> Explored:
    """Play every schedule within the bound.

    Raises:
        AssertionError: one of them breaks a promise; its schedule is in the message, and
            ``replay()`` plays it again.
    """
    explored = Explored(allowed(scenario))
    with Stage(scenario.names, scenario.using) as stage:
        _play(scenario, stage, ())  # asks what is asked once and kept, such as which tables exist
        waiting: list[tuple[int, int, tuple[str, ...]]] = [(0, 0, ())]
        while waiting:
            _, _, prefix = heapq.heappop(waiting)
            play = _play(scenario, stage, prefix)
            assert not play.problems, play.told()
            explored.schedules += 1
            explored.steps += len(play.choices)
            explored.waits += play.waits
            explored.kinds[play.kind] += 1
            for cost, branch in _branches(play, len(prefix), explored.preemptions):
                heapq.heappush(waiting, (cost, explored.schedules + len(waiting), branch))
    return explored


def replay(scenario: Scenario, schedule: str) -> Play:
    """Play one schedule, as a failure printed it."""
    with Stage(scenario.names, scenario.using) as stage:
        _play(scenario, stage, ())
        return _play(scenario, stage, tuple(schedule.split()))


def allowed(scenario: Scenario) -> int:
    """Return how many preemptions are allowed in ``scenario``, by the knob or its own word."""
    number = os.environ.get(NUMBER_KNOB)
    if number is not None:
        return int(number)
    return scenario.preemptions + faults.IS_WIDE


def _branches(play: Play, first: int, allowed: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield what else could have been done from the step ``first`` on, and what it costs."""
    chosen = tuple(choice.chosen for choice in play.choices)
    for number, choice in enumerate(play.choices[first:], first):
        for other in choice.options:
            cost = choice.cost_of(other)
            if other != choice.chosen and cost <= allowed:
                yield cost, (*chosen[:number], other)


def _play(scenario: Scenario, stage: Stage, prefix: Sequence[str]) -> Play:
    play, waits_before = Play(), stage.waits_seen
    stage.begin(scenario.arrange())
    try:
        while not stage.is_over and not play.problems:
            _step(scenario, stage, prefix, play)
    finally:
        stage.abort()
    play.waits = stage.waits_seen - waits_before
    if not play.problems:
        play.problems, play.kind = scenario.conclude(stage.errors())
    return play


def _step(scenario: Scenario, stage: Stage, prefix: Sequence[str], play: Play) -> None:
    options, number = tuple(stage.runnable()), len(play.choices)
    assert options, f"everybody waits for a lock: {play.told()}"
    last = play.choices[-1] if play.choices else None
    before = last.chosen if last else None
    if number < len(prefix):
        chosen = prefix[number]
        if chosen not in options:
            raise Diverged(
                f"{chosen} can't go on at step {number} of {' '.join(prefix)}, where "
                f"{stage.told()}: {play.told()}"
            )
    else:
        chosen = before if before in options else options[0]
    play.choices.append(Choice(chosen, options, before, last.cost_of(last.chosen) if last else 0))
    play.labels.append(stage.step(chosen))
    play.problems += scenario.look(play.labels[-1])
    if number >= MOST_STEPS:
        play.problems.append(f"no end after {MOST_STEPS} steps")
