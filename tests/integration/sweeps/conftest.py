"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jaiminho_celery import registry as event_registry
from parviraptor_celery import aliases
from tests.integration.sweeps.common import Kicks, WritesTo


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget which databases have which tables, and the functions of these tests."""
    monkeypatch.setattr(aliases, "_tables", {})
    known = dict(event_registry._functions)
    yield
    event_registry._functions.clear()
    event_registry._functions.update(known)


@pytest.fixture
def kicked(monkeypatch: pytest.MonkeyPatch) -> Kicks:
    """Collect what would be sent to the broker: names of tasks, arguments."""
    sent: Kicks = []
    monkeypatch.setattr(
        "parviraptor_celery.broker.kick", lambda task, **about: sent.append((task, about)) or True
    )
    return sent


@pytest.fixture
def _only_here(using: str, settings: Any) -> None:
    """Let all sweeps of the test look at its own database only."""
    settings.DATABASE_ROUTERS = [WritesTo(using)]
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "SWEEP_LANES": 5}
