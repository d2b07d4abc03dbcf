"""How the state machines are run: the same examples each time, or many others on request.

    FAULTS=wide make test ARGS="tests/integration/test_queue_machine.py"
    FAULTS_EXAMPLES=5000 FAULTS=wide make test ARGS="..."  # so many for each test
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

logger = logging.getLogger("tests.faults")

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


def run_machine(machine: Callable[[], RuleBasedStateMachine], examples: int, steps: int) -> None:
    """Run ``machine`` on so many examples of at most so many steps; the first that fails is told.

    They are the same in each run, and no database of examples is kept. With ``FAULTS=wide`` they
    are random, more and longer; with ``FAULTS=quick`` a failure is told as it was found, long.
    """
    knob = os.environ.get("FAULTS")
    wide = knob == "wide"
    profile = settings(
        max_examples=int(os.environ.get("FAULTS_EXAMPLES", WIDE)) if wide else examples,
        stateful_step_count=LONG if wide else steps,
        derandomize=not wide,
        database=None,
        deadline=None,
        phases=(Phase.generate,) if knob == "quick" else (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=profile)
