"""pytest-celery's containers as local processes: no Docker needed.

Only the innermost object is replaced, the container of the Docker SDK that pytest-celery wraps.
Nodes, clusters, `celery_setup`, `kill()` and `restart()` are pytest-celery's own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from pytest_celery import (
    CeleryTestWorker,
    CeleryWorkerContainer,
    RabbitMQContainer,
    RedisContainer,
)
from pytest_docker_tools.exceptions import ContainerFailed
from pytest_docker_tools.exceptions import TimeoutError as ContainerTimeoutError

from tests import rabbitmq
from tests.supervision import processes

READY_SECONDS = 60.0
STOP_SECONDS = 10.0


class LocalProcess:
    """What pytest-celery needs of a container, done with a supervised process."""

    def __init__(
        self,
        supervisor: processes.Supervisor,
        name: str,
        argv: Sequence[str],
        directory: Path,
        env: Mapping[str, str] | None = None,
        process: processes.Managed | None = None,
    ) -> None:
        """Start a process; or go on with one that runs already, and start its like later."""
        self.id, self.name = uuid.uuid4().hex, name
        self._supervisor = supervisor
        self._argv = [word.replace("%h", self.id[:12]) for word in argv]
        self._directory = directory
        self._env = {**_clean_environment(), **(env or {})}
        self._log = directory / f"{name}-{self.id[:12]}.log"
        if process is not None and process.log_path is not None:
            self._log = process.log_path
        self.attrs: dict[str, Any] = {
            "Config": {
                "Hostname": self.id[:12],
                "Env": [f"{k}={v}" for k, v in (env or {}).items()],
            },
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }
        if process is None:
            self.start()
        else:
            self.process = process

    @property
    def status(self) -> str:
        return "running" if self.process.poll() is None else "exited"

    def start(self) -> None:
        self.process = self._supervisor.start(
            self.name, self._argv, env=self._env, cwd=self._directory, log=self._log
        )

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop it and what it left behind; at once if the timeout (seconds) is 0."""
        if timeout:
            self.process.terminate(timeout)
        self.process.kill_session()

    def restart(self, timeout: float = STOP_SECONDS) -> None:
        self.stop(timeout)
        self.start()

    def kill(self, signal: str | int | None = None) -> None:
        """Signal the main process; SIGKILL takes its children along, as with a container."""
        number = _signal_number(signal)
        if number == _signal_number(None):
            self.process.kill_session()
        else:
            self.process.send_signal(number)

    def reload(self) -> None:
        """Nothing to do: `status` always looks."""

    def logs(self) -> bytes:
        """Everything it ever logged, as a container would show it."""
        return self._log.read_bytes()

    def logs_of_this_life(self) -> str:
        return self.process.log_text()

    def exec_run(self, command: str | Sequence[str], **_: Any) -> tuple[int, bytes]:
        done = subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=self._directory,
            env=self._env,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


class _ReadyByLog:
    """For subclasses of CeleryTestContainer: ready as soon as this life's log says so."""

    name: str
    ready_prompt: str
    _container: LocalProcess

    def ready(self) -> bool:
        def prompt_or_gone() -> bool:
            gone = self._container.status == "exited"
            return gone or self.ready_prompt in self._container.logs_of_this_life()

        try:
            processes.wait_until(prompt_or_gone, READY_SECONDS, f"{self.name} to be ready")
        except TimeoutError as error:
            raise ContainerTimeoutError(self._problem(str(error))) from None
        if self._container.status == "exited":
            raise ContainerFailed(self, self._problem("exited before it was ready"))
        return True

    def teardown(self) -> None:
        self._container.stop(timeout=0)  # a warm shutdown would take two seconds a test

    def _problem(self, what: str) -> str:
        return str(self._container.process.failure(what))


class LocalWorkerContainer(_ReadyByLog, CeleryWorkerContainer):
    """A Celery worker; not alone on this machine, hence no chat with other workers."""

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:
        quiet = ("--without-mingle", "--without-gossip", "--concurrency=2", *args)
        return [sys.executable, "-m", *super().command(*quiet, **kwargs)]


class LocalRedisContainer(_ReadyByLog, RedisContainer):
    """A Valkey, which speaks Redis' protocol, on a port of 127.0.0.1."""

    hostname = "127.0.0.1"
    vhost = "0"
    ready_prompt = "Ready to accept connections"

    @property
    def port(self) -> int:
        return int(self.env["PORT"])

    @property
    def url(self) -> str:
        return f"redis://{self.hostname}:{self.port}/{self.vhost}"

    @property
    def host_url(self) -> str:
        return self.url


class LocalRabbitMQContainer(_ReadyByLog, RabbitMQContainer):
    """A RabbitMQ node on ports of 127.0.0.1."""

    ready_prompt = rabbitmq.READY_LOG_LINE

    @property
    def port(self) -> int:
        return int(self.env["PORT"])

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def host_url(self) -> str:
        return self.url


class LocalWorker(CeleryTestWorker):
    """A worker node that looks at its log and its processes directly, and more often."""

    def wait_for_log(self, log: str, message: str = "", timeout: float = READY_SECONDS) -> None:
        _wait(lambda: log in self.logs(), timeout, message or f"{self.name()} to log {log!r}")

    def get_running_processes_info(
        self, columns: list[str] | None = None, filters: dict[str, str] | None = None
    ) -> list[dict[str, Any]]:
        main = psutil.Process(self.container._container.process.pid)
        infos = [process.as_dict(columns) for process in [main, *main.children(recursive=True)]]
        wanted = (filters or {}).items()
        return [info for info in infos if all(info.get(key) == value for key, value in wanted)]


def _clean_environment() -> dict[str, str]:
    """Return ours without the tests' Django settings, which a container would not know either."""
    return {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}


def _wait(predicate: Callable[[], bool], timeout: float, what: str) -> None:
    try:
        processes.wait_until(predicate, timeout, what)
    except TimeoutError as error:
        raise ContainerTimeoutError(str(error)) from None


def _signal_number(wanted: str | int | None) -> int:
    if wanted is None:
        return signal.SIGKILL
    return signal.Signals[wanted] if isinstance(wanted, str) else wanted
