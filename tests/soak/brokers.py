"""A broker of the run's own, behind a proxy that can swallow packets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from tests.supervision import embedded, processes


class Broker(Protocol):
    """A server that can be killed, started again, and robbed of what it keeps."""

    url: str
    is_durable: bool
    """Whether neither it nor its clients ever lose a message: what RabbitMQ promises."""

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def forget(self) -> None: ...


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

    def kill(self) -> None:
        self._process.kill()
        self._supervisor.processes.remove(self._process)

    def forget(self) -> None:
        """Lose everything, as a server without a disk does; while it is down."""
        shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)


def start(kind: str, supervisor: processes.Supervisor, directory: Path) -> Broker:
    """Start a broker of this kind; its files go to ``directory``."""
    broker = Valkey(supervisor, directory)
    broker.start()
    return broker
