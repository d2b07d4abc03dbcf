"""State machines beside a model, and how they are run: the same examples each time, or others.

FAULTS=wide make test ARGS="tests/integration/test_queue_machine.py"
FAULTS_EXAMPLES=5000 FAULTS=wide make test ARGS="..."  # so many for each test
"""

from __future__ import annotations

import copy
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar
from unittest import mock
from zlib import crc32

from django.db import transaction
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test

from parviraptor_celery.drains import Report
from parviraptor_celery.test import virtual_clock
from tests.faults import IS_WIDE, KNOB
from tests.faults.doom import Refused
from tests.faults.figures import Note

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

WIDE = 200
"""So many examples are tried on request."""

LONG = 40
"""Steps of an example then."""


class Tally:
    """Counts what the machines of one test did."""

    def __init__(self) -> None:
        self.examples = 0
        self.rules: Counter[str] = Counter()

    def __str__(self) -> str:
        told = ", ".join(f"{name} {count}" for name, count in self.rules.most_common())
        return f"{self.examples} examples, {self.rules.total()} steps: {told}"


class Undone(Exception):
    """Rolls a transaction back."""


@dataclass(frozen=True)
class InSavepoint:
    """Do a step of a transaction, and roll that back."""

    step: Any


class BesideAModel(RuleBasedStateMachine):
    """Does the same to a database and to a model, under a clock that is set forward by the hour."""

    using: ClassVar[str]
    tally: ClassVar[Tally]
    refusals: ClassVar[tuple[type[Exception], ...]] = ()
    """How the library refuses what the model refuses."""

    model: Any

    def __init__(self) -> None:
        super().__init__()
        self.tally.examples += 1
        self.messages: list[tuple[str, dict[str, Any]]] = []
        """What was published and not delivered."""

        self.world = ExitStack()
        self.clock = self.world.enter_context(virtual_clock())
        self.start = self.clock.now() - MINUTE
        self.world.enter_context(mock.patch("parviraptor_celery.broker.kick", self._take_message))

    def teardown(self) -> None:
        with self.world:
            if sys.exc_info()[0] is None:
                self.come_to_rest()

    def come_to_rest(self) -> None:
        """Let everything succeed from now on, and see that it ends where the model says."""
        raise NotImplementedError

    def count(self, rule: str) -> None:
        self.tally.rules[rule] += 1

    def do(self, step: Any) -> None:
        """Do one step of a transaction, to both."""
        raise NotImplementedError

    def in_savepoint(self, step: Any) -> None:
        """Do a step and roll it back."""
        before = copy.deepcopy(self.model)
        with suppress(Undone), transaction.atomic(using=self.using):
            self.do(step)
            raise Undone
        self.model = before

    def set_forward(self, hours: int) -> None:
        """Set the clock forward, and a little more: what is due in an hour is due then."""
        self.clock.advance(hours * HOUR + MINUTE)
        self.model.now += hours

    def hours(self, moment: datetime | None) -> int | None:
        """Return a moment as the model knows it."""
        return None if moment is None else (moment - self.start) // HOUR

    def outcome_of(self, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns, or the name of the exception by which it refuses."""
        try:
            return call()
        except Refused as refusal:
            return str(refusal)
        except self.refusals as refusal:
            return type(refusal).__name__

    @contextmanager
    def coming_back(self, tasks: Any, task: str) -> Iterator[None]:
        """Take the retries of a module's tasks for messages."""

        def come_back(_: Any, report: Report, **arguments: Any) -> None:
            for lane in report.pauses:
                lanes = {"lanes": [lane]} if lane else {}
                self.messages.append((task, {**arguments, **lanes}))

        with mock.patch.object(tasks, "retry_when_due", come_back):
            yield

    def _take_message(self, task: str, *, countdown: float | None = None, **about: Any) -> bool:
        self.messages.append((task, about))
        return True


def run_machine(
    name: str, machine: type[BesideAModel], examples: int, steps: int, figures: Note
) -> None:
    """Run ``machine`` on so many examples of at most so many steps; the first that fails is told.

    They are the same in each run of this ``name``, and no database of examples is kept. With
    ``FAULTS=wide`` they are random, more and longer; with ``FAULTS=quick`` a failure is told as
    it was found, long.
    """
    profile = settings(
        max_examples=int(os.environ.get("FAULTS_EXAMPLES", WIDE)) if IS_WIDE else examples,
        stateful_step_count=LONG if IS_WIDE else steps,
        database=None,
        deadline=None,
        phases=(Phase.generate,) if KNOB == "quick" else (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    test = get_state_machine_test(machine, settings=profile)
    try:
        (test if IS_WIDE else seed(crc32(name.encode()))(test))()
    finally:
        tally = machine.tally
        figures("state machines", str(tally), examples=tally.examples, steps=tally.rules.total())
