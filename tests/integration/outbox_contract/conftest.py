"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from jaiminho_celery import hooks, registry
from parviraptor_celery import broker as library_broker
from tests.integration.outbox_contract.common import done
from tests.integration.test_celery_messages import make_app


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    done.clear()
    known = dict(registry._functions)
    library_broker.close_breaker()
    yield
    hooks.flush()
    registry._functions.clear()
    registry._functions.update(known)
    library_broker.close_breaker()


@pytest.fixture
def quiet(queue_name: str) -> Any:
    """An app whose broker is in memory: nobody hears the nudges."""
    return make_app(Celery, "memory://", queue_name)
