"""For tests: lets the worker of this process die at a named point, as by SIGKILL."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NoReturn
from unittest import mock

from django.db import connections

from . import execution, kicks, signals

CRASH_POINTS: dict[str, str] = {
    "enqueued": "A job was inserted in a transaction, which is not committed yet.",
    "committed": "The transaction was committed, and no worker has been kicked.",
    "claimed": "A worker holds the lease of a job, and its body has not begun.",
    "processed": "The body of a job has ended, and nothing is recorded of it.",
    "settled": "The outcome of a job is committed, and the worker has not looked any further.",
    "rescued": "A lease that ran out was given back, and nothing has been done with the job.",
}
"""Where a crash can be asked for, and what has happened by then."""


class Crash(BaseException):
    """The worker died here. No handler of the engine catches it."""


class CrashPointNotReached(AssertionError):
    """The block of ``crash_at()`` ended, and nothing had come to its crash point."""


class CrashAt:
    """What ``crash_at()`` yields."""

    def __init__(self, point: str, how: str, nth: int) -> None:
        self.point, self.how, self.nth = point, how, nth
        self.has_happened = False
        """Whether the worker has died."""

        self._guard = threading.Lock()
        self._dead: list[tuple[Any, Any]] = []

    def come_by(self) -> None:
        """Die if it is time: called at the crash point."""
        with self._guard:
            self.nth -= 1
            if self.nth != 0:
                return
            self.has_happened = True
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self._die()

    def clear_away(self) -> None:
        """Let the threads that died be used again."""
        for connection, refuse in self._dead:
            connection.execute_wrappers.remove(refuse)

    def _die(self) -> NoReturn:
        """Raise Crash, and see to it that this thread writes nothing while that goes up.

        ``finally`` and ``__exit__`` do run in a thread, as they would not after SIGKILL.
        """
        point = self.point

        def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            # What a rollback consists of, the server does by itself for a client that died.
            if sql.startswith(("ROLLBACK TO", "RELEASE")):
                return execute(sql, params, many, context)
            raise Crash(f"The worker died at {point!r}.")

        for connection in connections.all():
            connection.execute_wrappers.insert(0, refuse)  # others pop theirs from the end
            self._dead.append((connection, refuse))
        raise Crash(f"The worker died at {point!r}.")


@contextmanager
def crash_at(
    point: str, *, how: Literal["raise", "kill"] = "raise", nth: int = 1
) -> Iterator[CrashAt]:
    """Let the worker that comes to ``point`` inside the block die there.

    >>> with crash_at("claimed"):
    ...     run_queue(Shipment)

    The block ends there, without an error. What the worker had not committed is rolled back, and
    nothing of the engine runs any more that would clean up: the job stays leased until its lease
    runs out. Only the thread that came to the point dies.

    Args:
        point: one of ``CRASH_POINTS``.
        how: "kill" sends SIGKILL to this whole process, for workers in processes of their own.
        nth: die at the nth time that a worker comes to the point.

    Raises:
        ValueError: there is no such point.
        CrashPointNotReached: the block ended without a crash.
    """
    if point not in CRASH_POINTS:
        raise ValueError(f"There is no crash point {point!r}; there are {', '.join(CRASH_POINTS)}.")
    crash = CrashAt(point, how, nth)
    try:
        with _ANCHORS[point](crash.come_by):
            yield crash
    except Crash:
        pass
    finally:
        crash.clear_away()
    if not crash.has_happened:
        raise CrashPointNotReached(
            f"Nothing came to the crash point {point!r}: {CRASH_POINTS[point]}"
        )


@contextmanager
def _at_signal(sent: Any, come_by: Callable[[], None]) -> Iterator[None]:
    def receive(**_: Any) -> None:
        come_by()

    sent.connect(receive)
    try:
        yield
    finally:
        sent.disconnect(receive)


@contextmanager
def _before(
    owner: Any, names: tuple[str, ...], come_by: Callable[[], None], counts: Callable[..., bool]
) -> Iterator[None]:
    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def coming_by(*args: Any, **kwargs: Any) -> Any:
            if counts(*args):
                come_by()
            return function(*args, **kwargs)

        return coming_by

    with ExitStack() as stack:
        for name in names:
            function = getattr(owner, name)
            stack.enter_context(mock.patch.object(owner, name, wrapped(function)))
        yield


@contextmanager
def _after(owner: Any, name: str, come_by: Callable[[], None]) -> Iterator[None]:
    function = getattr(owner, name)

    def coming_by(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        come_by()
        return result

    with mock.patch.object(owner, name, coming_by):
        yield


def _in_a_transaction(_: Any, using: str, *__: Any) -> bool:
    return bool(connections[using].in_atomic_block)


def _always(*_: Any) -> bool:
    return True


_ANCHORS: dict[str, Callable[[Callable[[], None]], Any]] = {
    "enqueued": lambda come_by: _before(
        kicks, ("on_commit", "many_on_commit"), come_by, _in_a_transaction
    ),
    "committed": lambda come_by: _before(kicks, ("send",), come_by, _always),
    "claimed": lambda come_by: _at_signal(signals.job_claimed, come_by),
    "processed": lambda come_by: _after(execution, "_run_body", come_by),
    "settled": lambda come_by: _at_signal(signals.job_finished, come_by),
    "rescued": lambda come_by: _at_signal(signals.job_rescued, come_by),
}
"""Which functions and signals of the engine the points are tied to."""
