"""The fixture of the tests that explore a scenario, and what a run tells of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.explorer import Explored, explore
from tests.faults.figures import Note
from tests.faults.world import World

HOUR = 3600

Explore = Callable[..., Explored]


@pytest.fixture
def explored(
    using: str,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    figures: Note,
) -> Explore:
    """Return a function that explores a scenario (its class), and sees that it met all kinds."""

    # How long a schedule takes, on a machine that is busy, must decide nothing.
    settings.PARVIRAPTOR_CONFIG = {"KICK_SECONDS": HOUR, "LEASE_SECONDS": HOUR}
    settings.JAIMINHO_CONFIG = {"RELAY_SECONDS": HOUR, "LEASE_SECONDS": HOUR}

    def explore_all(scenario: type[World], *arguments: object) -> Explored:
        found = explore(scenario(using, monkeypatch, *arguments))
        figures(
            "schedules",
            str(found),
            schedules=found.schedules,
            steps=found.steps,
            waits_for_a_lock=found.waits,
        )
        missing = scenario.expected - set(found.kinds)
        assert not missing, f"never seen: {sorted(missing)}, of {found}"
        return found

    return explore_all
