"""pytest-celery on local processes: `celery_setup` boots a worker and a Valkey of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_celery import CeleryTestBroker, RedisTestBackend

# Here the name means pytest-celery's worker again, not the one in a thread (tests/conftest.py).
from pytest_celery import celery_worker as celery_worker

from tests import servers
from tests.e2e.local import LocalProcess, LocalRedisContainer, LocalWorker, LocalWorkerContainer
from tests.supervision import embedded, processes

ROOT = Path(__file__).resolve().parents[2]


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
    port = processes.free_port()
    directory = tmp_path_factory.mktemp("valkey")
    try:
        argv = embedded.valkey_command(directory, port)
    except embedded.MissingServer as error:
        servers.give_up(str(error))
    process = LocalProcess(supervisor, "valkey", argv, directory, env={"PORT": str(port)})
    container = LocalRedisContainer(process)
    container.ready()
    return container


@pytest.fixture
def celery_broker(valkey: LocalRedisContainer) -> CeleryTestBroker:
    """An empty broker. Not torn down: it lives as long as the run."""
    if valkey.status != "running":  # the last test may have stopped it
        valkey.restart()
    valkey.client.flushall()
    return CeleryTestBroker(valkey)


@pytest.fixture
def celery_backend(valkey: LocalRedisContainer) -> RedisTestBackend:
    return RedisTestBackend(valkey)


@pytest.fixture
def default_worker_cls() -> type[LocalWorker]:
    return LocalWorker


@pytest.fixture
def default_worker_container_cls() -> type[LocalWorkerContainer]:
    return LocalWorkerContainer


@pytest.fixture
def default_worker_container(
    supervisor: processes.Supervisor,
    default_worker_container_cls: type[LocalWorkerContainer],
    default_worker_env: dict[str, str],
    default_worker_command: list[str],
    default_worker_initial_content: dict[str, bytes],
    tmp_path: Path,
) -> Iterator[LocalWorkerContainer]:
    """The stock worker, run from a directory that holds what its container's volume would."""
    for name, content in default_worker_initial_content.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    env = {**default_worker_env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = LocalProcess(supervisor, "worker", default_worker_command, tmp_path, env=env)
    container = default_worker_container_cls(process)
    try:
        container.ready()
        yield container
    finally:
        container.teardown()
