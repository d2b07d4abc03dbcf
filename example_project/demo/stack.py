"""The processes of a run: what a user would run, and the two services outside."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .places import Places
from .processes import Managed, Supervisor, port_answers

ROOT = Path(__file__).resolve().parent.parent.parent
WEB_THREADS = 2
WORKER_CHILDREN = 2
LOG_LEVEL = "WARNING"  # two lines for every task would be most of the log
READY_SECONDS = 60.0
# A warm shutdown may take Celery's pool half a minute when a task has just ended; by then nothing
# is left to do here, so it is cut short.
GRACE_SECONDS = 5.0


class Stack:
    """Starts each process by name, with its own log in the run's directory."""

    def __init__(self, supervisor: Supervisor, places: Places) -> None:
        self._supervisor = supervisor
        self._places = places

    def migrate(self) -> None:
        """Bring the database up to date; an error if that fails."""
        argv = ["-m", "example_project.manage", "migrate", "--verbosity", "1"]
        migration = self._start("migrate", argv)
        if migration.wait(READY_SECONDS * 2) != 0:
            raise migration.failure("failed")

    def board(self) -> Managed:
        port = self._places.board_port
        argv = ["board", "--port", str(port), "--journal", str(self._places.journal)]
        return self._external(argv, port)

    def pricing(self, outage_seconds: float) -> Managed:
        port = self._places.pricing_port
        argv = ["pricing", "--port", str(port), "--outage-seconds", str(outage_seconds)]
        return self._external(argv, port)

    def web(self) -> Managed:
        port = self._places.web_port
        listen = ["--host=127.0.0.1", f"--port={port}", f"--threads={WEB_THREADS}"]
        argv = ["-m", "waitress", *listen, "example_project.wsgi:application"]
        return self._start("web", argv, port)

    def worker(self) -> Managed:
        children = f"--concurrency={WORKER_CHILDREN}"
        name = f"--hostname={self._places.queue}@%h"
        return self._celery("worker", children, name, "--without-mingle", "--without-gossip")

    def beat(self) -> Managed:
        return self._celery("beat", "--scheduler=django", "--max-interval=2", "--pidfile=")

    def _celery(self, command: str, *options: str) -> Managed:
        argv = [
            "-m",
            "celery",
            "-A",
            "example_project",
            command,
            f"--loglevel={LOG_LEVEL}",
            *options,
        ]
        return self._start(command, argv)

    def _external(self, argv: Sequence[str], port: int) -> Managed:
        return self._start(argv[0], ["-m", "example_project.demo.external", *argv], port)

    def _start(self, name: str, argv: Sequence[str], port: int | None = None) -> Managed:
        return self._supervisor.start(
            name,
            [sys.executable, *argv],
            env={**os.environ, **self._places.environment},
            cwd=ROOT,
            ready=None if port is None else lambda: port_answers("127.0.0.1", port),
            ready_timeout=READY_SECONDS,
            grace=GRACE_SECONDS,
            log=self._places.directory / f"{name}.log",
        )
