"""A process of its own for part of a test: forked, and killed by SIGKILL at one of its steps.

The child has connections of its own. What it does is numbered from the beginning of its body; what
it came by is on file before it is done, so that it can be read whatever becomes of the child.
"""

from __future__ import annotations

import enum
import gc
import json
import logging
import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from django.db import Error, connections
from django.db.backends.signals import connection_created

from tests.faults.steps import Step, stepping

PATIENCE_SECONDS = 20
POLL_SECONDS = 0.002
LIFE_SECONDS = 60
BROKEN = 3
"""Exit code of a child whose body raised what no body should."""


class Way(enum.Enum):
    """What befalls a step."""

    BEFORE = "killed before"
    AFTER = "killed after"
    LOST = "nobody heard of"
    """It was done, but its connection broke before the answer came; the process lives on."""


@dataclass(frozen=True)
class Fault:
    """The step of a given number, counted from 1, and what befalls it."""

    number: int
    way: Way


@dataclass(frozen=True)
class Taken:
    """A step that a child came by."""

    name: str
    kind: str
    is_durable: bool


@dataclass
class Child:
    """What became of a child."""

    pid: int
    steps: list[Taken] = field(default_factory=list)
    backends: list[int] = field(default_factory=list)
    """The numbers by which the database server knows its connections."""

    kicks: list[dict[str, Any]] = field(default_factory=list)
    """What it has published."""

    complaints: list[str] = field(default_factory=list)
    """What it has logged as a warning or an error."""

    error: str = ""
    """What its body raised, if that was the database's error."""

    was_killed: bool = False


def in_a_child(using: str, file: Path, body: Callable[[Steps], None], fault: Fault | None) -> Child:
    """Run ``body`` in a forked process, let ``fault`` happen, and return what became of it.

    Returns when the database server has undone what the child had left open.
    """
    for connection in connections.all(initialized_only=True):
        connection.close()  # neither of the two may use the other's
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside a heartbeat
        pid = os.fork()
    if pid == 0:
        _live(file, body, fault)
    _, status = os.waitpid(pid, 0)
    child = _told_by(file, pid)
    child.was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert child.was_killed or status == 0, f"the child ended with {status}:\n{child.error}"
    _await_end_of(child.backends, using)
    return child


class Steps:
    """Numbers what the child does, and lets the fault happen."""

    def __init__(self, file: Path, fault: Fault | None) -> None:
        self._file, self._fault = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), fault
        self._number = 0

    def come_by(self, step: Step, do: Callable[[], Any]) -> Any:
        """Do ``step``, or what the fault wants."""
        self._number += 1
        self.tell(step=step.name, kind=step.kind, is_durable=step.is_durable)
        if self._fault is None or self._number != self._fault.number:
            return do()
        if self._fault.way is Way.BEFORE:
            die()
        try:
            result = do()
        finally:
            if self._fault.way is Way.AFTER:
                die()
        break_off(step.connection)
        return result

    def tell(self, **about: Any) -> None:
        """Put something on file, at once."""
        os.write(self._file, json.dumps(about).encode() + b"\n")


def die() -> NoReturn:
    """End this process as if the power had gone."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive after SIGKILL")


def break_off(connection: Any) -> NoReturn:
    """Break the socket under ``connection`` and raise what its driver then raises.

    The next statement is never sent, so whatever was done before is done.
    """
    raw = connection.connection
    ours = socket.socket(fileno=os.dup(raw.fileno()))
    ours.shutdown(socket.SHUT_RDWR)
    ours.close()
    with connection.wrap_database_errors:
        if connection.vendor == "postgresql":
            raw.execute("SELECT 1")
        else:
            raw.query("SELECT 1")
    raise AssertionError("a connection without a socket has answered")


def _live(file: Path, body: Callable[[Steps], None], fault: Fault | None) -> NoReturn:
    """Be the child."""
    gc.disable()  # it would touch, and so copy, all that the parent has
    steps, code = Steps(file, fault), BROKEN
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIFE_SECONDS)
        _come_by_every_connection(steps)
        _tell_of_complaints(steps)
        body(steps)
        code = 0
    except Error as error:
        steps.tell(error=f"{type(error).__name__}: {error}")
        code = 0
    except BaseException:
        steps.tell(error=traceback.format_exc())
    finally:
        os._exit(code)


def _come_by_every_connection(steps: Steps) -> None:
    stack, known = ExitStack(), set[int]()

    def opened(connection: Any, **_: Any) -> None:
        steps.tell(backend=_backend_of(connection))
        if id(connection) not in known:
            known.add(id(connection))
            stack.enter_context(stepping(connection, steps.come_by))

    connection_created.connect(opened, weak=False)


def _tell_of_complaints(steps: Steps) -> None:
    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            steps.tell(complaint=record.getMessage())

    for name in ("parviraptor_celery", "jaiminho_celery"):
        logging.getLogger(name).addHandler(Teller(logging.WARNING))


def _backend_of(connection: Any) -> int | None:
    match connection.vendor:
        case "postgresql":
            return int(connection.connection.info.backend_pid)
        case "mysql":
            return int(connection.connection.thread_id())
    return None


def _told_by(file: Path, pid: int) -> Child:
    child = Child(pid)
    for line in file.read_text().splitlines():
        match json.loads(line):
            case {"step": name, "kind": kind, "is_durable": is_durable}:
                child.steps.append(Taken(name, kind, is_durable))
            case {"backend": int(number)}:
                child.backends.append(number)
            case {"kick": about}:
                child.kicks.append(about)
            case {"complaint": message}:
                child.complaints.append(message)
            case {"error": error}:
                child.error = error
    return child


_ALIVE = {
    "postgresql": "SELECT 1 FROM pg_stat_activity WHERE pid IN ({})",
    "mysql": "SELECT 1 FROM information_schema.processlist WHERE id IN ({})",
}


def _await_end_of(backends: list[int], using: str) -> None:
    """Wait until the server has noticed that its clients are gone, and rolled back what they did.

    SQLite's locks go with the process.
    """
    if not backends:
        return
    statement = _ALIVE[connections[using].vendor].format(", ".join(map(str, backends)))

    deadline = time.monotonic() + PATIENCE_SECONDS
    with connections[using].cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(statement)
            if cursor.fetchone() is None:
                return
            time.sleep(POLL_SECONDS)
    raise AssertionError(f"after {PATIENCE_SECONDS} s the server has not noticed a client's death")
