"""Brokers as pytest-celery's containers, without Docker: private ones, or one that was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from pytest_celery import RabbitMQContainer

from tests import rabbitmq, servers
from tests.e2e.local import LocalProcess, LocalRabbitMQContainer, LocalRedisContainer
from tests.ports import lasting_port
from tests.supervision import embedded, processes


def private_valkey(supervisor: processes.Supervisor, directory: Path) -> LocalRedisContainer:
    """Start a Valkey; MissingServer if there is no wheel of it."""
    port = lasting_port()
    argv = embedded.valkey_command(directory, port)
    process = LocalProcess(supervisor, "valkey", argv, directory, env={"PORT": str(port)})
    container = LocalRedisContainer(process)
    container.ready()
    return container


def private_rabbitmq(supervisor: processes.Supervisor, directory: Path) -> LocalRabbitMQContainer:
    """Start a RabbitMQ; MissingServer if it is not installed."""
    node = rabbitmq.start_node(supervisor, directory)
    environment = {**node.environment(), "PORT": str(node.port)}
    running = supervisor.processes[-1]
    process = LocalProcess(
        supervisor, "rabbitmq", node.command(), directory, env=environment, process=running
    )
    return LocalRabbitMQContainer(process)


class GivenRabbitMQContainer(RabbitMQContainer):
    """The RabbitMQ that the run was given: others may use it, so no test takes it away."""

    def __init__(self, url: str) -> None:
        super().__init__(GivenServer())
        self._url = url

    def ready(self) -> bool:
        return True

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {"url": self._url, "host_url": self._url}


class GivenServer:
    """What pytest-celery needs of a container, done with a server that isn't ours."""

    id = name = "given-rabbitmq"
    status = "running"
    attrs: dict[str, Any] = {"Config": {"Hostname": "", "Env": []}}

    def reload(self) -> None:
        """Nothing to do: it is there."""

    def kill(self, signal: Any = None) -> NoReturn:
        servers.give_up("This RabbitMQ is not the run's own. Install rabbitmq-server for one.")

    def restart(self, timeout: float = 0) -> NoReturn:
        self.kill()
