"""How much the rigs went through, told in the last lines of a run; with ``-v`` case by case."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

PROPERTY = "figures"

Note = Callable[..., None]


@pytest.fixture
def figures(using: str, request: pytest.FixtureRequest) -> Note:
    """Return a function that notes what a case went through: a rig, and numbers by their name.

    They go with the test's report, which pytest-xdist brings from its workers.
    """

    def note(rig: str, about: str = "", **numbers: int) -> None:
        told = [rig, using, request.node.name, numbers, about]
        request.node.user_properties.append((PROPERTY, told))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = sorted(
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for name, value in getattr(report, "user_properties", ())
        if name == PROPERTY
    )
    if told:
        terminalreporter.section("what the rigs went through")
    if terminalreporter.config.get_verbosity() > 0:
        for _, _, case, numbers, about in told:
            terminalreporter.write_line(f"{case}: {_line(numbers)} {about}")
    totals: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for rig, using, _, numbers, _ in told:
        totals[rig, using].update(cases=1, **numbers)
    for (rig, using), total in totals.items():
        terminalreporter.write_line(f"{rig:15} {using:11} {_line(total)}")


def _line(numbers: Any) -> str:
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in numbers.items())
