"""A child process at the head of a session of its own: how it begins, and how it ends for sure."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

LAUNCHER = Path(__file__).with_name("launch.py")


def resolve(argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str] | None) -> list[str]:
    """Return the command as strings; FileNotFoundError here rather than in the child's log."""
    command = [os.fspath(argument) for argument in argv]
    search_path = None if env is None else env.get("PATH")
    if os.sep not in command[0] and shutil.which(command[0], path=search_path) is None:
        raise FileNotFoundError(f"there is no command {command[0]!r} on the PATH")
    return command


def spawn(
    command: list[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    death_signal: int,
    log: Path | None,
) -> subprocess.Popen[bytes]:
    """Start a command in a new session; RuntimeError outside of the main thread (Linux)."""
    if sys.platform == "linux":
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "start processes from the main thread: on Linux a child dies with the thread"
                " that started it"
            )
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER)]
        command = [*launcher, str(os.getpid()), str(int(death_signal)), *command]
    output: IO[bytes] | None = None if log is None else log.open("ab")
    try:
        return subprocess.Popen(  # noqa: S603 - callers pass lists of their own
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        if output is not None:
            output.close()


def kill(session_id: int) -> None:
    """SIGKILL every process of a session whose first process has this id."""
    others = _members(session_id)
    _signal_quietly(os.killpg, session_id)
    for pid in others:
        _signal_quietly(os.kill, pid)


def _members(session_id: int) -> list[int]:
    """Return the processes of a session, also those in process groups of their own (Linux)."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(after_name[3]) == session_id:
            members.append(int(entry.name))
    return members


def _signal_quietly(send: Callable[[int, int], None], pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: a zombie, on macOS
        send(pid, signal.SIGKILL)
