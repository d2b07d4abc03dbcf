"""Worker nodes of pytest-celery that run our code, on a test's databases and broker."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from django.db import connections
from pytest_celery import CeleryWorkerCluster

from tests.e2e.local import LocalProcess, LocalWorker, LocalWorkerContainer
from tests.supervision import processes

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0


class DjangoWorkerContainer(LocalWorkerContainer):
    """A worker of tests.e2e.project."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        argv = [sys.executable, "-m", "celery", "-A", "tests.e2e.project.app", "worker"]
        argv += [f"--loglevel={cls.log_level()}", "-n", f"{cls.worker_name()}@%h"]
        return [*argv, "--without-mingle", "--without-gossip", "--concurrency=1", *args]

    @classmethod
    def worker_name(cls) -> str:
        return "django"

    def worker_queue(self) -> str:
        """Return the queue of this test."""
        queue: str = self.env["E2E_QUEUE"]
        return queue


class DjangoWorker(LocalWorker):
    """A worker node on local processes, whose main process the test may watch and signal."""

    gate: Path | None = None

    def set_to_work(self) -> None:
        """Let one that stands by begin."""
        assert self.gate is not None, "this one does not stand by"
        self.gate.touch()

    @property
    def process(self) -> processes.Managed:
        process: processes.Managed = self.container._container.process
        return process

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def exit_status(self) -> int:
        """Wait until it has ended; TimeoutError after a minute."""
        return self.process.wait(SECONDS)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def wait_until(self, predicate: Callable[[], bool], what: str) -> None:
        """Wait until it is so; if the worker is gone meanwhile, or too slow, show its log."""

        def held_or_gone() -> bool:
            return predicate() or self.has_ended

        try:
            processes.wait_until(held_or_gone, SECONDS, what)
        except TimeoutError as error:
            raise self.process.failure(str(error)) from None
        if not predicate():
            raise self.process.failure(f"ended before {what}")


class Workers:
    """Starts worker nodes, on the databases and the queue of one test; stops them in the end."""

    def __init__(
        self,
        supervisor: processes.Supervisor,
        directory: Path,
        cluster_config: dict[str, Any],
        queue: str,
        aliases: Sequence[str],
    ) -> None:
        self.supervisor, self.directory = supervisor, directory
        names = {alias: connections[alias].settings_dict["NAME"] for alias in aliases}
        broker = cluster_config["celery_broker_cluster_config"]
        self.environment = {
            "CELERY_BROKER_URL": ";".join(broker["host_urls"]),  # not what containers call it
            "E2E_QUEUE": queue,
            "E2E_DATABASES": json.dumps({alias: str(name) for alias, name in names.items()}),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "CELERY_SKIP_CHECKS": "1",  # what the project is like is none of these tests' concern
        }
        self.nodes: list[DjangoWorker] = []
        self._others: list[LocalProcess] = []

    def start(
        self, *options: str, settings: dict[str, Any] | None = None, **environment: str
    ) -> DjangoWorker:
        """Start a worker with one child, and settings of its own; don't wait until it is ready."""
        environment["E2E_SETTINGS"] = json.dumps(settings or {})
        container = DjangoWorkerContainer(
            self._process("worker", DjangoWorkerContainer.command(*options), environment)
        )
        self.nodes.append(DjangoWorker(container, app=None))
        return self.nodes[-1]

    def stand_by(self) -> DjangoWorker:
        """Start a worker that has begun, and does nothing until it is set to work."""
        gate = self.directory / f"gate{len(self.nodes)}"
        node = self.start(E2E_GATE=str(gate))
        node.gate = gate
        return node

    def cluster(self, size: int, **how: Any) -> CeleryWorkerCluster:
        """Start some at the same time; return them as a cluster that is ready."""
        cluster = CeleryWorkerCluster(*[self.start(**how) for _ in range(size)])
        cluster.ready()
        return cluster

    def start_flower(self) -> str:
        """Start Flower beside the workers; return its address."""
        port = processes.free_port()
        argv = [sys.executable, "-m", "celery", "-A", "tests.e2e.project.app", "flower"]
        argv += ["--address=127.0.0.1", f"--port={port}"]
        flower = self._process("flower", argv, {"FLOWER_UNAUTHENTICATED_API": "1"})
        self._others.append(flower)

        def answers_or_gone() -> bool:
            return processes.port_answers("127.0.0.1", port) or flower.status == "exited"

        processes.wait_until(answers_or_gone, SECONDS, "Flower to answer")
        assert flower.status == "running", flower.logs_of_this_life()
        return f"http://127.0.0.1:{port}"

    def stop_all(self) -> None:
        """Kill what was started, and what it left behind."""
        for node in self.nodes:
            node.teardown()
        for process in self._others:
            process.stop(timeout=0)

    def _process(self, name: str, argv: list[str], environment: dict[str, str]) -> LocalProcess:
        env = {**self.environment, **environment}
        return LocalProcess(self.supervisor, name, argv, self.directory, env=env)
