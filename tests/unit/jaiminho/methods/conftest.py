"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jaiminho_celery import registry
from tests.testapp import announcers


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No calls, no errors, and a registry to write to."""
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))
    announcers.calls.clear()
    announcers.errors.clear()
    yield
    announcers.calls.clear()
    announcers.errors.clear()
