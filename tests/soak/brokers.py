"""A broker of the run's own, which may be killed, started again, and robbed of what it keeps."""

from __future__ import annotations

import glob
import os
import re
import shutil
from pathlib import Path
from typing import Protocol

import redis

from tests.supervision import embedded, processes

ITEM = re.compile(rb"message-[0-9a-f]+-[0-9]+-[0-9]+")
RABBITMQ_SCRIPTS = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
"""Debian's own script in front of these changes the user and the place of the log."""


class Broker(Protocol):
    """A server of this run."""

    url: str
    is_durable: bool
    """Whether neither it nor its clients ever lose a message: what RabbitMQ promises."""

    def start(self) -> None:
        """Start it, with all that it kept; clients can connect some time later."""

    def await_up(self) -> None:
        """Wait until clients can connect; TimeoutError if that takes a minute."""

    def kill(self) -> None:
        """SIGKILL."""

    def forget(self) -> set[str]:
        """Lose everything, as one without a disk does; return the messages that were in it."""


class Valkey:
    """Writes every command to disk before it answers: a kill alone loses nothing."""

    is_durable = False

    def __init__(self, supervisor: processes.Supervisor, directory: Path) -> None:
        self._supervisor, self._directory = supervisor, directory
        directory.mkdir()
        self._port = processes.free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        argv = embedded.valkey_command(self._directory, self._port)
        log = self._directory / "valkey.log"
        offset = log.stat().st_size if log.exists() else 0
        self._process = self._supervisor.start(
            "valkey",
            [*argv, "--appendonly", "yes", "--appendfsync", "always"],
            cwd=self._directory,
            ready=lambda: "Ready to accept connections" in processes.read_log(log, offset),
            log=log,
        )

    def await_up(self) -> None:
        processes.wait_until(
            lambda: processes.port_answers("127.0.0.1", self._port), 60, "Valkey to answer"
        )

    def kill(self) -> None:
        self._process.kill()
        self._supervisor.processes.remove(self._process)

    def forget(self) -> set[str]:
        with redis.Redis.from_url(self.url) as client:
            kept = [
                message
                for key in client.scan_iter()
                for message in (
                    client.lrange(key, 0, -1)
                    if client.type(key) == b"list"
                    else client.hvals(key)
                    if client.type(key) == b"hash"
                    else []
                )
            ]
            client.flushall()
        return {item.decode() for message in kept for item in ITEM.findall(message)}


class RabbitMQ:
    """A node of its own, with a name server of its own, beside any that runs here already."""

    is_durable = True

    def __init__(self, supervisor: processes.Supervisor, directory: Path) -> None:
        self._supervisor, self._directory = supervisor, directory
        directory.mkdir()
        (directory / "plugins").write_text("[].")
        self._port = processes.free_port()
        self._environment = {**os.environ, **self._places()}
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        supervisor.start("epmd", ["epmd"], env=self._environment, log=directory / "epmd.log")
        self.start()
        self.await_up()

    def start(self) -> None:
        log = self._directory / "rabbitmq.log"
        self._process = self._supervisor.start(
            "rabbitmq", [_rabbitmq_server()], env=self._environment, cwd=self._directory, log=log
        )

    def await_up(self) -> None:
        def is_up() -> bool:
            return "Server startup complete" in self._process.log_text()

        processes.wait_until(is_up, 60, "RabbitMQ to start")

    def kill(self) -> None:
        self._process.kill_session()
        self._supervisor.processes.remove(self._process)

    def forget(self) -> set[str]:
        raise NotImplementedError("it promises not to")

    def _places(self) -> dict[str, str]:
        here = str(self._directory)
        return {
            "HOME": here,  # of the cookie
            "ERL_EPMD_PORT": str(processes.free_port()),
            "RABBITMQ_NODENAME": f"soak{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(processes.free_port()),
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": here,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/none.conf",
            "RABBITMQ_CONFIG_FILE": f"{here}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/plugins",
            # The script then becomes the server, instead of waiting beside it.
            "RUNNING_UNDER_SYSTEMD": "1",
        }


def start(kind: str, supervisor: processes.Supervisor, directory: Path) -> Broker:
    """Start a broker of this kind; its files go to ``directory``."""
    if kind == "rabbitmq":
        return RabbitMQ(supervisor, directory)
    broker = Valkey(supervisor, directory)
    broker.start()
    return broker


def _rabbitmq_server() -> str:
    scripts = glob.glob(RABBITMQ_SCRIPTS)
    found = scripts[-1] if scripts else shutil.which("rabbitmq-server")
    if found is None:
        raise embedded.MissingServer("rabbitmq-server is not installed here")
    return found
