"""Lets a process die at each step of what it does, one death at a time, and looks what is left.

A path is what a process does: enqueue, run a lane, relay. It runs once unharmed, which tells its
steps. Then, for each step, it begins anew in a forked process that is killed there (or loses the
answer of a COMMIT, and goes on). Others recover, with a clock that is set forward, until nothing
happens any more; and then everything has to be as the promises say.

FAULTS=wide kills before and after each step, and goes every path on every engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path as File
from typing import Any

import pytest
from django.db import connections

from parviraptor_celery import clock
from tests.faults import IS_WIDE
from tests.faults.forks import Child, Fault, Steps, Taken, Way, in_a_child
from tests.faults.ledger import Ledger
from tests.faults.steps import Step

MOST_ROUNDS = 8
ROUND = timedelta(minutes=5)
"""Longer than a lease, and than the first pauses of a back-off."""

MOST_TOLD = 5
"""Cases with broken promises, after which a path is given up."""


@dataclass(frozen=True)
class Path:
    """Something that a process does, and what has to come of it.

    ``arrange`` runs before, ``act`` is what is cut off. ``least`` says how many steps there must
    be on any engine, so that none is left out unseen.
    """

    name: str
    arrange: Callable[[Any], None]
    act: Callable[[Any], None]
    least: int
    repeats: int = 1
    """How many bodies one death may repeat."""

    goes_on: bool = True
    """Whether one who lost an answer goes on by himself, as workers do, and leaves nothing over."""

    engines: str = "SPM"
    """On which it is gone by default: SQLite, PostgreSQL, MariaDB. What they share one will do."""

    meanwhile: Callable[[Any], None] = lambda world: None
    """What somebody else does right after, before anybody recovers anything."""

    expected: dict[str, Any] = field(default_factory=dict)
    """What the world is told of what has to come of it."""

    def __str__(self) -> str:
        return self.name


class World:
    """Where a path happens: a database, a ledger, and messages that wait for a worker."""

    def __init__(self, using: str, folder: File) -> None:
        self.using, self.folder, self.case = using, folder, 0
        self.kicks: list[dict[str, Any]] = []
        self.come_by: Callable[[Step, Callable[[], Any]], Any] = lambda step, do: do()

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / f"{self.case}.ledger")

    def kick(self, task: str, **about: Any) -> bool:
        """Stand in for ``broker.kick()``."""
        message = {"task": task, **about}
        self.come_by(Step("message", f"the message {message}"), lambda: self.publish(message))
        return True

    def publish(self, message: dict[str, Any]) -> None:
        self.kicks.append(message)

    def begin_case(self) -> None:
        """Forget the last case."""
        self.case += 1
        self.kicks = []
        self.tidy()

    def act(self, path: Path, fault: Fault | None) -> Child:
        """Let a child go the path."""

        def body(steps: Steps) -> None:
            self.come_by = steps.come_by
            self.publish = lambda message: (  # type: ignore[method-assign]
                self.kicks.append(message),
                steps.tell(kick=message),
            )
            path.act(self)

        child = in_a_child(self.using, self.folder / f"{self.case}.steps", body, fault)
        self.ledger.note("gone", process=str(child.pid))
        self.kicks = child.kicks
        return child

    def recover(self) -> None:
        """Do what others do after a death, later and later, until nothing is open any more."""
        self.work()
        if not self.is_open():
            return
        try:
            for number in range(1, MOST_ROUNDS):
                clock.move(ROUND * number)
                self.work()
                if not self.is_open():
                    return
        finally:
            clock.move(timedelta())

    # What the world of an app says

    def tidy(self) -> None:
        """Delete everything."""
        raise NotImplementedError

    def note_arranged(self) -> None:
        """Look at what is there before the path."""

    def note_left(self, child: Child) -> None:
        """Look at what the child has left."""

    def work(self) -> None:
        """Sweep, and work off all messages."""
        raise NotImplementedError

    def is_open(self) -> bool:
        """Return whether there is something that isn't at its end."""
        raise NotImplementedError

    def problems(self, path: Path, child: Child, fault: Fault | None) -> Iterator[str]:
        """Yield every broken promise."""
        raise NotImplementedError


@dataclass
class Tally:
    """How many cases a path came to."""

    steps: list[Taken]
    killed: int = 0
    lost: int = 0

    @property
    def numbers(self) -> dict[str, int]:
        return {"steps": len(self.steps), "deaths": self.killed, "lost_answers": self.lost}


def cases_of(paths: list[Any]) -> list[Any]:
    """Return engine and path of each test, as parameters that are named by both."""
    return [
        pytest.param(engine, path, id=f"{engine}-{path}")
        for path in paths
        for engine, letter in (("sqlite", "S"), ("postgresql", "P"), ("mariadb", "M"))
        if IS_WIDE or letter in path.engines
    ]


def enumerate_crashes(path: Path, world: World) -> Tally:
    """Go through every case of ``path``.

    Raises:
        AssertionError: a promise was broken; the message names each case, and the steps.
    """
    go(path, world, None)  # what a process asks once, and keeps, is asked now
    unharmed, problems = go(path, world, None)
    tally, found = Tally(unharmed.steps), [f"unharmed: {problem}" for problem in problems]
    assert len(tally.steps) >= path.least, (
        f"{path} has fewer steps than {path.least}:{_told(tally)}"
    )
    for fault in faults_of(tally.steps, connections[world.using].vendor):
        child, problems = go(path, world, fault)
        if fault.way is Way.LOST:
            tally.lost += 1
        else:
            tally.killed += 1
        problems += _went_another_way(child, fault, tally.steps)
        case = f"{fault.way.value} step {fault.number}: {tally.steps[fault.number - 1].name}"
        found += ["\n    ".join([case, *problems])] if problems else []
        if len(found) >= MOST_TOLD:
            break
    assert not found, "\n".join([f"{path} on {world.using}:", *found, _told(tally)])
    return tally


def faults_of(steps: list[Taken], vendor: str) -> Iterator[Fault]:
    """Yield every fault of a path with these steps.

    Between two steps nothing happens that anybody could see, so a death after one of them is a
    death before the next; wide runs try both. SQLite runs inside the process: it can't be that one
    hears nothing of the other.
    """
    for number in range(1, len(steps) + 1):
        yield Fault(number, Way.BEFORE)
        if IS_WIDE or number == len(steps):
            yield Fault(number, Way.AFTER)
        if steps[number - 1].is_durable and vendor != "sqlite":
            yield Fault(number, Way.LOST)


def go(path: Path, world: World, fault: Fault | None) -> tuple[Child, list[str]]:
    """Let one case happen; return what became of the child, and every broken promise."""
    world.begin_case()
    path.arrange(world)
    world.note_arranged()
    child = world.act(path, fault)
    world.note_left(child)
    path.meanwhile(world)
    world.recover()
    return child, list(world.problems(path, child, fault))


def _went_another_way(child: Child, fault: Fault, steps: list[Taken]) -> list[str]:
    """Return a complaint unless the child came to the step that it was to die at."""
    before = [_without_numbers(step) for step in child.steps[: fault.number]]
    if before != [_without_numbers(step) for step in steps[: fault.number]]:
        return [f"it came by other steps: {[step.name for step in child.steps]}"]
    if child.was_killed == (fault.way is Way.LOST):
        return ["it was killed" if child.was_killed else "it was not killed"]
    return []


def _without_numbers(step: Taken) -> str:
    return re.sub(r"0x[0-9a-f]+|\d+", "", step.name)


def _told(tally: Tally) -> str:
    return "".join(f"\n  {at:2}. {step.name}" for at, step in enumerate(tally.steps, 1))
