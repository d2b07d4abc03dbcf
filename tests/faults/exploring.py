"""The fixture of the tests that explore a scenario, and what a run of the tests tells about them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.explorer import Explored, explore
from tests.faults.world import World

PROPERTY = "schedules"

Explore = Callable[..., Explored]


@pytest.fixture
def explored(
    using: str,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> Explore:
    """Return a function that explores a scenario (its class), and sees that it met all kinds."""

    def explore_all(scenario: type[World], *arguments: object) -> Explored:
        import cProfile, pstats, time, os  # XXX
        t,c=time.time(),time.process_time()
        pr=cProfile.Profile(); PROF=os.environ.get("PROF")
        if PROF: pr.enable()
        try: found = explore(scenario(using, monkeypatch, *arguments))
        finally:
            pr.disable()
            print("WALL",round(time.time()-t,1),"CPU",round(time.process_time()-c,1))
            if PROF: pstats.Stats(pr).sort_stats("cumtime").print_stats(40)
        print(found)
        record_property(PROPERTY, str(found))
        missing = scenario.expected - set(found.kinds)
        assert not missing, f"never seen: {sorted(missing)}, of {found}"
        return found

    return explore_all


def told(reports: list[pytest.TestReport]) -> list[str]:
    """Return a line for each exploration among the reports of a run."""
    return [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for report in reports
        for name, value in report.user_properties
        if name == PROPERTY
    ]
