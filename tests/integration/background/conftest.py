"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jaiminho_celery import hooks
from parviraptor_celery import broker
from tests.integration.background.common import Send, numbers, sender


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    broker.close_breaker()
    yield
    hooks.flush()
    broker.close_breaker()


@pytest.fixture
def send(using: str, redis_url: str, queue_name: str) -> Send:
    """Send a task that is known by its number."""
    return sender(using, redis_url, queue_name)


@pytest.fixture
def arrived(redis_url: str, queue_name: str) -> Callable[[], list[int]]:
    """Take the numbers of the tasks that are at the broker, in no order."""
    return lambda: numbers(redis_url, queue_name)
