"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jaiminho_celery.app import OutboxCelery
from parviraptor_celery import broker as library_broker
from tests import servers
from tests.integration.wire import Broker, acting, application


@pytest.fixture(params=["redis", "rabbitmq"])
def at(request: pytest.FixtureRequest, queue_name: str) -> Iterator[Broker]:
    place = Broker(servers.require(request.param), queue_name)
    yield place
    place.close()
    library_broker.close_breaker()


@pytest.fixture
def app(at: Broker) -> Iterator[Any]:
    ours = application(OutboxCelery, at)
    with acting(ours):
        yield ours
