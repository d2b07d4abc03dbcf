"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# The fixture that users get; tests/unit/conftest.py has another one of this name.
from jaiminho_celery.pytest_plugin import outbox as outbox
from tests.testapp import outbox as functions


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    functions.forget()
    yield
    functions.forget()
