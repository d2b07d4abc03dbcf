"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jaiminho_celery import registry


@pytest.fixture(autouse=True)
def _own_functions() -> Iterator[None]:
    """Forget the functions that a test decorates."""
    known = dict(registry._functions)
    yield
    registry._functions.clear()
    registry._functions.update(known)
