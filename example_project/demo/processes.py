"""Start processes, wait until they are ready, and stop every one of them, whatever happens.

Each child gets a session of its own, so Ctrl-C reaches only us, and we stop the children in order.
On Linux they die with us even if we are killed with SIGKILL; elsewhere only an orderly exit, an
exception or Ctrl-C stops them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from . import sessions

POLL_SECONDS = 0.02
REAP_SECONDS = 10.0
TAIL_LINES = 25


class ProcessFailed(RuntimeError):
    """A process ended, or stayed unready, before it could be used."""


class Managed:
    """One supervised process, the main one of its own session."""

    def __init__(
        self,
        name: str,
        popen: subprocess.Popen[bytes],
        *,
        log_path: Path | None,
        log_offset: int,
        stop_signal: int,
        grace: float,
    ) -> None:
        self.name = name
        self.pid = popen.pid
        self.log_path = log_path
        self.grace = grace
        self._popen = popen
        self._log_offset = log_offset
        self._stop_signal = stop_signal
        self._session_gone = False

    def __repr__(self) -> str:
        return f"<Managed {self.name} pid={self.pid} returncode={self._popen.returncode}>"

    def poll(self) -> int | None:
        """Return the exit status (negative: the signal that killed it), or None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; TimeoutError if it still runs after `timeout` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout:g} s") from None

    def terminate(self, grace_seconds: float) -> int:
        """Ask the main process to stop, then SIGKILL what is left; return the exit status."""
        self.send_signal(self._stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(grace_seconds)
        self.kill_session()
        return self.wait(REAP_SECONDS)

    def send_signal(self, number: int) -> None:
        """Signal the main process only; nothing happens if it has ended."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL the main process only, as the kernel's OOM killer would."""
        self._popen.kill()
        self.wait(REAP_SECONDS)

    def kill_session(self) -> None:
        """SIGKILL the main process and every descendant that stayed in its session."""
        if self._session_gone:  # by now the numbers may belong to a stranger
            return
        sessions.kill(self.pid)
        self.wait(REAP_SECONDS)
        self._session_gone = True

    def log_text(self) -> str:
        """Return what it has logged since this start ("" if its output is not captured)."""
        return read_log(self.log_path, self._log_offset)

    def failure(self, problem: str) -> ProcessFailed:
        """Return an error that tells the problem and shows the end of the log."""
        if self.log_path is None:
            return ProcessFailed(f"{self.name} {problem}; see its output above.")
        tail = "\n".join(f"    {line}" for line in self.log_text().splitlines()[-TAIL_LINES:])
        return ProcessFailed(
            f"{self.name} {problem}. The end of {self.log_path}:\n{tail or '    (empty)'}"
        )


class Supervisor:
    """Context manager that owns processes; the last started is the first to be stopped.

    with Supervisor() as supervisor:
        supervisor.start("web", ["waitress-serve", ...], ready=lambda: port_answers(host, port))
    """

    def __init__(self) -> None:
        self.processes: list[Managed] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        ready: Callable[[], bool] | None = None,
        ready_timeout: float = 30.0,
        stop_signal: int = signal.SIGTERM,
        death_signal: int = signal.SIGKILL,
        grace: float = 15.0,
        log: Path | None = None,
    ) -> Managed:
        """Start a process and wait until it is ready; ProcessFailed if it never is.

        `env` replaces the environment, `log` is appended to (without it the output is ours),
        `grace` is in seconds, `death_signal` is what the child gets when we die (Linux).
        """
        command = sessions.resolve(argv, env)
        offset = log.stat().st_size if log is not None and log.exists() else 0
        popen = sessions.spawn(command, env=env, cwd=cwd, death_signal=death_signal, log=log)
        managed = Managed(
            name, popen, log_path=log, log_offset=offset, stop_signal=stop_signal, grace=grace
        )
        self.processes.append(managed)
        if ready is not None:
            self._await_ready(managed, ready, ready_timeout)
        return managed

    def exited(self) -> list[Managed]:
        """Return the processes that have ended, by themselves or by a signal."""
        return [managed for managed in self.processes if managed.poll() is not None]

    def stop(self) -> None:
        """Stop all, the servers (started first) last; a second Ctrl-C kills at once."""
        try:
            while self.processes:
                self.processes[-1].terminate(self.processes[-1].grace)
                self.processes.pop()
        except BaseException:
            for managed in reversed(self.processes):
                managed.kill_session()
            self.processes.clear()
            raise

    def _await_ready(
        self, managed: Managed, ready: Callable[[], bool], timeout_seconds: float
    ) -> None:
        def ready_or_gone() -> bool:
            return managed.poll() is not None or ready()

        problem = ""
        try:
            wait_until(ready_or_gone, timeout_seconds, f"{managed.name} to be ready")
        except TimeoutError:
            problem = f"was not ready within {timeout_seconds:g} s"
        if managed.poll() is not None:
            problem = f"exited with status {managed.poll()} before it was ready"
        if problem:
            managed.kill_session()
            self.processes.remove(managed)
            raise managed.failure(problem)


def wait_until(predicate: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll until `predicate()` holds; TimeoutError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    """Return a TCP port that is free on 127.0.0.1 now; another process may still be faster."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_answers(host: str, port: int) -> bool:
    """Say whether something accepts TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def read_log(path: Path | None, offset: int = 0) -> str:
    """Return the text of a log from a byte offset on; "" if there is none yet."""
    if path is None or not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(offset)
        return log.read().decode(errors="replace")
