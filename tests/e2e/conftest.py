"""pytest-celery's pieces for the end-to-end tests: `celery_setup` boots a worker of our code.

Brokers live as long as the run, in each worker of pytest-xdist its own; queues and workers belong
to a test. See engine.py for what the nodes are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery._state import _tls
from kombu import Connection
from pytest_celery import (
    CeleryTestBroker,
    CeleryTestSetup,
    RabbitMQContainer,
    RabbitMQTestBroker,
    RedisTestBackend,
    RedisTestBroker,
)

from jaiminho_celery.app import OutboxCelery
from parviraptor_celery.broker import close_breaker
from tests import servers
from tests.conftest import OneDatabase
from tests.e2e import brokers, engine
from tests.e2e.jobs import Hold
from tests.e2e.local import LocalProcess, LocalRedisContainer, LocalWorker, LocalWorkerContainer
from tests.e2e.nodes import ROOT, DjangoWorker, Workers
from tests.supervision import embedded, processes


@pytest.fixture(scope="session")
def supervisor() -> Iterator[processes.Supervisor]:
    """Whatever a test starts with it is stopped at the end of the run at the latest."""
    with processes.Supervisor() as supervisor:
        yield supervisor


@pytest.fixture(scope="session")
def valkey(
    supervisor: processes.Supervisor, tmp_path_factory: pytest.TempPathFactory
) -> LocalRedisContainer:
    """A Valkey for the end-to-end tests alone, since they empty, stop and restart it."""
    try:
        return brokers.private_valkey(supervisor, tmp_path_factory.mktemp("valkey"))
    except embedded.MissingServer as error:
        servers.give_up(str(error))


@pytest.fixture(scope="session")
def rabbitmq(
    supervisor: processes.Supervisor, tmp_path_factory: pytest.TempPathFactory
) -> RabbitMQContainer:
    """A RabbitMQ for the end-to-end tests alone where it is installed, else the given one."""
    try:
        return brokers.private_rabbitmq(supervisor, tmp_path_factory.mktemp("rabbitmq"))
    except embedded.MissingServer:
        return brokers.GivenRabbitMQContainer(servers.require("rabbitmq"))


@pytest.fixture
def processes_redis_broker(valkey: LocalRedisContainer) -> RedisTestBroker:
    """An empty broker. Not torn down: it lives as long as the run."""
    if valkey.status != "running":  # the last test may have stopped it
        valkey.restart()
    valkey.client.flushall()
    return RedisTestBroker(valkey)


@pytest.fixture
def processes_rabbitmq_broker(
    rabbitmq: RabbitMQContainer, queue_name: str
) -> Iterator[RabbitMQTestBroker]:
    """A broker on which the queue of this test is new. Not torn down, as above."""
    if rabbitmq.status != "running":
        rabbitmq.restart()
    broker = RabbitMQTestBroker(rabbitmq)
    yield broker
    if rabbitmq.status == "running":
        with Connection(broker.config()["host_url"]) as connection:
            connection.default_channel.queue_delete(queue_name)


@pytest.fixture(params=["redis", "rabbitmq"])
def celery_broker(request: pytest.FixtureRequest) -> CeleryTestBroker:
    """Each kind of broker in turn, as a container or as a process."""
    prefix = "celery" if engine.chosen() == engine.DOCKER else "processes"
    broker: CeleryTestBroker = request.getfixturevalue(f"{prefix}_{request.param}_broker")
    return broker


@pytest.fixture
def processes_redis_backend(valkey: LocalRedisContainer) -> RedisTestBackend:
    return RedisTestBackend(valkey)


@pytest.fixture
def celery_backend_cluster() -> None:
    """Jobs and events have no results."""


@pytest.fixture
def workers(
    supervisor: processes.Supervisor,
    tmp_path: Path,
    celery_worker_cluster_config: dict[str, Any],
    celery_setup_app: OutboxCelery,
    queue_name: str,
    aliases: list[str],
) -> Iterator[Workers]:
    """Starts workers of our code, as a test wants them; kicks of the test reach them."""
    workers = Workers(supervisor, tmp_path, celery_worker_cluster_config, queue_name, aliases)
    yield workers
    workers.stop_all()


@pytest.fixture
def aliases() -> list[str]:
    """The databases that the workers of a test serve."""
    servers.require("postgresql")
    return ["postgresql"]


@pytest.fixture
def celery_worker(workers: Workers) -> DjangoWorker:
    """A worker of our code. Nobody waits until it is ready, since queues keep messages for it."""
    return workers.start()


@pytest.fixture
def alias(aliases: list[str], settings: Any) -> str:
    """The one database of a test, where rows go that name none."""
    (alias,) = aliases
    settings.DATABASE_ROUTERS = [OneDatabase(alias)]
    return alias


@pytest.fixture
def hold(aliases: list[str]) -> Iterator[Hold]:
    """Lets the bodies of jobs wait."""
    (alias,) = aliases
    with Hold(alias) as hold:
        yield hold


@pytest.fixture
def processes_worker(
    supervisor: processes.Supervisor,
    celery_worker_cluster_config: dict[str, Any],
    default_worker_initial_content: dict[str, bytes],
    tmp_path: Path,
) -> Iterator[LocalWorker]:
    """The stock worker, run from a directory that holds what its container's volume would."""
    for name, content in default_worker_initial_content.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    env = LocalWorkerContainer.initial_env(celery_worker_cluster_config)
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    argv = LocalWorkerContainer.command()
    container = LocalWorkerContainer(LocalProcess(supervisor, "worker", argv, tmp_path, env=env))
    container.ready()
    yield LocalWorker(container, app=None)
    container.teardown()


class OutboxSetup(CeleryTestSetup):
    """A setup whose application, the tests' side, publishes through the outbox."""

    @classmethod
    def create_setup_app(
        cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str
    ) -> OutboxCelery:
        app = OutboxCelery(celery_setup_app_name)
        app.config_from_object(celery_setup_config)
        return app


@pytest.fixture
def celery_setup_cls() -> type[OutboxSetup]:
    return OutboxSetup


@pytest.fixture
def celery_setup_name(queue_name: str) -> str:
    """The application is named like its queue, here and in the workers."""
    return queue_name


@pytest.fixture
def celery_setup_config(
    celery_setup_cls: type[CeleryTestSetup],
    celery_worker_cluster_config: dict[str, Any],
    queue_name: str,
) -> dict[str, Any]:
    """The test publishes to the queue that its workers consume."""
    config: dict[str, Any] = celery_setup_cls.config(celery_worker_cluster_config)
    return {**config, "task_default_queue": queue_name}


@pytest.fixture
def celery_setup_app(
    celery_setup_cls: type[CeleryTestSetup],
    celery_setup_config: dict[str, Any],
    celery_setup_name: str,
) -> Iterator[OutboxCelery]:
    """The current application during a test. It forgets that its broker was away."""
    before = _tls.current_app
    app = celery_setup_cls.create_setup_app(celery_setup_config, celery_setup_name)
    yield app
    app.close()
    _tls.current_app = before
    close_breaker()
