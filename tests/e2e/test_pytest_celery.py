"""pytest-celery's own worker and tasks: the nodes below it hold, and nothing here knows of them."""

from __future__ import annotations

import pytest
from pytest_celery import (
    RESULT_TIMEOUT,
    CeleryBackendCluster,
    CeleryTestBroker,
    CeleryTestSetup,
    CeleryTestWorker,
    add,
)

from tests.e2e import engine


@pytest.fixture
def celery_broker(request: pytest.FixtureRequest) -> CeleryTestBroker:
    """Redis, which is the backend too."""
    name = "celery_redis" if engine.chosen() == engine.DOCKER else "processes_redis"
    broker: CeleryTestBroker = request.getfixturevalue(f"{name}_broker")
    return broker


@pytest.fixture
def celery_backend_cluster(request: pytest.FixtureRequest) -> CeleryBackendCluster:
    name = "celery_redis" if engine.chosen() == engine.DOCKER else "processes_redis"
    return CeleryBackendCluster(request.getfixturevalue(f"{name}_backend"))


@pytest.fixture
def celery_worker(request: pytest.FixtureRequest) -> CeleryTestWorker:
    stock = "celery_setup_worker" if engine.chosen() == engine.DOCKER else "processes_worker"
    worker: CeleryTestWorker = request.getfixturevalue(stock)
    return worker


@pytest.fixture
def queue_name() -> str:
    """The one that the stock worker consumes."""
    return "celery"


def test_a_stock_worker_answers_and_comes_back_after_a_kill(celery_setup: CeleryTestSetup) -> None:
    worker = celery_setup.worker

    assert add.s(1, 2).apply_async(queue=worker.worker_queue).get(timeout=RESULT_TIMEOUT) == 3

    worker.kill()
    assert worker.container.status == "exited"
    waiting = add.s(3, 4).apply_async(queue=worker.worker_queue)
    worker.restart()
    assert waiting.get(timeout=RESULT_TIMEOUT) == 7
