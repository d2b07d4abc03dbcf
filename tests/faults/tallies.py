"""How many deaths and lost answers a run has gone through, for its last lines.

In verbose runs also by path; FAULTS=wide goes through all there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

PROPERTY = "crashes"


@pytest.fixture
def note_tally(using: str, request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Note what a test has gone through; xdist carries it along with the test's report."""

    def note(tally: Any) -> None:
        path = request.node.callspec.params["path"]
        told = [using, str(path), len(tally.steps), tally.killed, tally.lost]
        request.node.user_properties.append((PROPERTY, told))

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    told = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if not told:
        return
    terminalreporter.section("crash enumeration")
    totals: dict[str, Counter[str]] = {}
    for using, path, steps, killed, lost in sorted(told):
        totals.setdefault(using, Counter()).update(paths=1, steps=steps, deaths=killed, lost=lost)
        if terminalreporter.verbosity > 0:
            terminalreporter.line(f"{using:12} {path:20} {_line(steps, killed, lost)}")
    for using, total in totals.items():
        line = _line(total["steps"], total["deaths"], total["lost"])
        terminalreporter.line(f"{using:12} {total['paths']:2} paths of {line}")


def _line(steps: int, killed: int, lost: int) -> str:
    return f"{steps} steps: {killed} deaths, {lost} lost answers"
