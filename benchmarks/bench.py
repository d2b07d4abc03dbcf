"""What the workloads of one run share: servers, databases, queues, and how drivers are started."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import Server
from tests.supervision import processes

from .databases import Databases
from .drivers import environment
from .peers import Peer
from .queues import RabbitQueue, RedisQueue
from .venvs import python_of

ROOT = Path(__file__).resolve().parent.parent
DRIVER_SECONDS = 900
QUEUES = {"redis": RedisQueue, "rabbitmq": RabbitQueue}
NOBODY_LISTENS = {"redis": "redis://127.0.0.1:1/0", "rabbitmq": "amqp://127.0.0.1:1//"}


@dataclass(frozen=True)
class Options:
    """What the command line chose; seconds, numbers of messages, jobs, transactions and rows."""

    peers: tuple[str, ...]
    messages: int = 10_000
    jobs: int = 10_000
    sends: int = 300
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    cap_seconds: float = 60
    config: dict[str, Any] = field(default_factory=dict)


class DriverFailed(RuntimeError):
    """A driver ended with an error; the message shows the end of what it wrote."""


class Bench:
    def __init__(
        self,
        name: str,
        options: Options,
        servers: dict[str, Server],
        supervisor: processes.Supervisor,
        directory: Path,
    ) -> None:
        self.name, self.options, self.servers = name, options, servers
        self.databases = Databases(servers["postgresql"].url, name)
        self._supervisor, self._directory = supervisor, directory
        self._queues: dict[str, Any] = {}
        self.ledger = directory / "ledger"
        """The file in which the bodies of jobs note their starts."""

    def missing(self, broker: str) -> str:
        """Return why a broker can't be used; "" if it can."""
        return self.servers[broker].reason

    def queue(self, broker: str) -> Any:
        """Return the run's own queue there (RedisQueue or RabbitQueue), the same each time."""
        if broker not in self._queues:
            self._queues[broker] = QUEUES[broker](self.servers[broker].url, self.name)
        return self._queues[broker]

    def migrated(self, peer: Peer) -> str:
        """Return the template that has the peer's tables."""

        def migrate(conninfo: str) -> None:
            self.call(peer, "migrate", conninfo=conninfo)

        return self.databases.template(peer.name, migrate)

    def filled(self, peer: Peer, broker: str, messages: int) -> str:
        """Return the template in which that many messages wait for the peer's relay."""

        def fill(conninfo: str) -> None:
            # The broker's kind counts, for it is part of the message; nobody must reach it yet.
            where = {"conninfo": conninfo, "broker_url": NOBODY_LISTENS[broker]}
            filled = self.call(peer, "fill", {"messages": messages}, **where)
            if peer.leaves_leases:
                filled = self.call(peer, "make_due", **where)
            if filled["messages"] != messages:
                raise DriverFailed(f"{peer.name}: {filled} wait instead of {messages} messages")

        key = f"{peer.name} {broker} {messages}"
        return self.databases.template(key, fill, base=self.migrated(peer))

    def call(
        self,
        peer: Peer,
        verb: str,
        arguments: dict[str, Any] | None = None,
        *,
        conninfo: str = "",
        broker_url: str = "memory://",
    ) -> dict[str, Any]:
        """Run a verb of the peer's driver and return its result.

        Raises:
            DriverFailed, PeerNotInstalled
        """
        command = [
            python_of(peer.requirements),
            "-m",
            peer.driver,
            verb,
            json.dumps(arguments or {}),
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment(peer, conninfo, broker_url),
            capture_output=True,
            text=True,
            timeout=DRIVER_SECONDS,
        )
        if done.returncode != 0:
            raise DriverFailed(f"{peer.name} {verb}: {done.stderr[-1500:] or done.returncode}")
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    @contextmanager
    def running(
        self,
        peer: Peer,
        arguments: Sequence[str],
        *,
        conninfo: str,
        broker: str,
        more: Mapping[str, str] | None = None,
    ) -> Iterator[processes.Managed]:
        """Yield a process of the peer's interpreter, which is ended afterwards.

        `more` are environment variables of its own.
        """
        log = self._directory / f"{peer.name}.log"
        log.write_bytes(b"")
        managed = self._supervisor.start(
            peer.name,
            [python_of(peer.requirements), *arguments],
            cwd=ROOT,
            env={**self._environment(peer, conninfo, self.queue(broker).url), **(more or {})},
            log=log,
        )
        try:
            yield managed
        finally:
            managed.terminate(managed.grace)
            self._supervisor.processes.remove(managed)

    def close(self) -> None:
        for queue in self._queues.values():
            queue.close()
        self.databases.close()

    def _environment(self, peer: Peer, conninfo: str, broker_url: str) -> dict[str, str]:
        ours = {
            environment.DATABASE_VARIABLE: conninfo,
            environment.BROKER_VARIABLE: broker_url,
            environment.QUEUE_VARIABLE: self.name,
            environment.LEDGER_VARIABLE: str(self.ledger),
            environment.CONFIG_VARIABLE: json.dumps(self.options.config),
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DJANGO_", "PYTHON"))}
        settings = {"DJANGO_SETTINGS_MODULE": peer.settings} if peer.settings else {}
        return {**inherited, **ours, **settings}
