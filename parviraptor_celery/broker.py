"""Publishes to the broker without ever making a request wait for it. Both apps use this module.

Kicks are small messages that say where work waits, and may be lost: the row they are about is
safe, and the sweep finds it. So a kick is tried once, within ``BROKER_TIMEOUT_SECONDS``, and
after a failure the breaker stays open for ``BROKER_BREAKER_SECONDS``.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from amqp.exceptions import FrameSyntaxError
from celery import Celery, current_app
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from . import signals
from .conf import settings

T = TypeVar("T")

FAILURES = (OperationalError, OSError)
"""What ``use`` raises when the broker is away."""

_REFUSING_ALL = ("OOM", "READONLY", "NOREPLICAS", "MISCONF", "CLUSTERDOWN")
"""How Redis says that it takes nothing now, where redis-py has no class for it."""

_open_until: dict[int, float] = {}
_pools: WeakKeyDictionary[Celery, dict[tuple[object, ...], Any]] = WeakKeyDictionary()
_eager = threading.local()
_silences: list[object] = []


class BrokerAway(OperationalError):
    """The broker failed a moment ago; it is left alone for a few seconds."""


class CannotConnect(OperationalError):
    """No connection to the broker came about: it is down, or refuses us."""


class TakesNothing(OperationalError):
    """The broker answers that it takes no messages now: it is full, or read-only."""


def kick(task: str, *, countdown: float | None = None, **kwargs: Any) -> bool:
    """Publish ``task`` with ``kwargs`` (names and ids only); return whether that worked.

    It runs after ``countdown`` seconds, or at once.

    Under ``task_always_eager`` the task runs at once, in this thread; kicks that it sends in
    its turn run after it, not inside it, so a chain of jobs can't exhaust the stack.
    """
    if _silences:
        return True
    app = this_app()
    if app.conf.task_always_eager:
        _run_eagerly(app, task, kwargs)
        return True
    try:
        use(app, lambda connection: _send(app, connection, task, kwargs, countdown))
    except BrokerAway:
        return False
    except FAILURES as error:
        signals.tell(signals.kick_failed, sender=task, error=error)
        return False
    return True


@contextmanager
def silence() -> Iterator[None]:
    """Send no kicks while the block runs, in no thread: for tests, which work rows off themselves.

    Kicks count as sent.
    """
    _silences.append(token := object())
    try:
        yield
    finally:
        _silences.remove(token)


def this_app() -> Celery:
    """Return the project's Celery app itself, not the proxy for it."""
    app: Celery = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


def is_app(value: object) -> bool:
    """Return whether ``value`` is a Celery app."""
    return isinstance(value, Celery)


def use(app: Celery, action: Callable[[Connection], T]) -> T:
    """Call ``action`` with a connection that has short timeouts; a failure opens the breaker.

    A pooled connection that had died unnoticed (the broker was restarted, a firewall forgot it)
    is replaced and ``action`` called again, once: so it must be safe to repeat.

    Raises:
        BrokerAway: the breaker is open; nothing was tried.
        OperationalError, OSError: the broker failed.
    """
    _refuse_while_broken()
    try:
        with _pool(app).acquire(block=True) as connection:
            _refuse_while_broken()  # another thread may have found out while we waited
            return _with_a_living(connection, action)
    except BrokerAway:
        raise
    except FAILURES:
        _open_until[os.getpid()] = time.monotonic() + settings.BROKER_BREAKER_SECONDS
        raise


def means_away(error: Exception, connection: Connection) -> bool:
    """Return whether ``error`` says that the broker is away, rather than that a message is wrong.

    Among a transport's "connection errors" are some that a message can cause: KeyError with
    Redis, and what py-amqp raises for a header that has no form in AMQP. And among the answers
    of Redis to one command are some that it would give to any: that it is full, for example.
    """
    error = _unwrapped(error)
    if isinstance(error, KeyError | FrameSyntaxError):
        return False
    if isinstance(error, ResponseError):
        return _is_for_all(error)
    return isinstance(error, (*FAILURES, *connection.connection_errors))


def seconds_until_tried() -> float:
    """Return for how long the broker is still left alone, in seconds; 0 if it is not."""
    return max(0.0, _open_until.get(os.getpid(), 0.0) - time.monotonic())


def close_breaker() -> None:
    """Forget that the broker was away: the next message is tried at once."""
    _open_until.clear()


def _refuse_while_broken() -> None:
    if seconds_until_tried():
        raise BrokerAway("the broker failed a moment ago")


def _send(
    app: Celery, connection: Connection, task: str, kwargs: dict[str, Any], countdown: float | None
) -> None:
    app.send_task(
        task,
        kwargs=kwargs,
        countdown=countdown,
        producer=app.amqp.Producer(connection, auto_declare=False),
        retry=False,
        ignore_result=True,
    )


def _with_a_living(connection: Connection, action: Callable[[Connection], T]) -> T:
    was_connected, began = connection.connected, time.monotonic()
    try:
        return _in_plain_terms(connection, action)
    except TakesNothing:
        raise
    except FAILURES:
        connection.collect()
        timed_out = time.monotonic() - began > settings.BROKER_TIMEOUT_SECONDS / 2
        if timed_out or not was_connected:
            raise
        return _in_plain_terms(connection, action)


def _in_plain_terms(connection: Connection, action: Callable[[Connection], T]) -> T:
    """Turn everything that says that the broker is away into an OperationalError."""
    try:
        connection.ensure_connection(max_retries=0)  # reading attributes would try twice
    except Exception as error:  # also a password that it refuses
        raise CannotConnect(str(error)) from error
    try:
        return action(connection)
    except Exception as error:
        if _is_for_all(_unwrapped(error)):
            raise TakesNothing(str(_unwrapped(error))) from error
        if means_away(error, connection) and not isinstance(error, FAILURES):
            raise OperationalError(str(error)) from error
        raise


def _unwrapped(error: Exception) -> Exception:
    """Return what a pipeline met, which kombu 5.7 wraps."""
    is_wrapped = type(error).__name__ == "BatchPublishError"
    cause = error.__cause__
    return cause if is_wrapped and isinstance(cause, Exception) else error


def _is_for_all(error: Exception) -> bool:
    """Return whether Redis would have given this answer to any command that writes."""
    if not isinstance(error, ResponseError):
        return False
    words = str(error).rpartition("caused error: ")[2]  # what redis-py says before, of a pipeline
    return isinstance(error, OutOfMemoryError | ReadOnlyError) or words.startswith(_REFUSING_ALL)


def _pool(app: Celery) -> Any:
    """Return this process's connections with short timeouts.

    Not kombu's own pools: a process that forks by itself would share their sockets.
    """
    seconds = settings.BROKER_TIMEOUT_SECONDS
    known = _pools.setdefault(app, {})
    if (key := (os.getpid(), seconds)) not in known:
        connection = app.connection_for_write(connect_timeout=seconds)
        options = {**(app.conf.broker_transport_options or {}), **_timeouts(connection, seconds)}
        options.pop("confirm_publish", None)  # which waits message by message
        pool = connection.clone(transport_options=options).Pool(app.conf.broker_pool_limit)
        weakref.finalize(app, pool.force_close_all).atexit = False
        known[key] = pool
    return known[key]


def _timeouts(connection: Any, seconds: float) -> dict[str, Any]:
    if connection.transport.driver_type == "redis":
        return {
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "retry_on_timeout": False,
            "max_retries": 0,
        }
    return {"read_timeout": seconds, "write_timeout": seconds, "max_retries": 0}


def _run_eagerly(app: Celery, task: str, kwargs: dict[str, Any]) -> None:
    waiting = getattr(_eager, "waiting", None)
    if waiting is not None:
        waiting.append((task, kwargs))
        return
    _eager.waiting = [(task, kwargs)]
    try:
        while _eager.waiting:
            name, arguments = _eager.waiting.pop(0)
            app.tasks[name].apply(kwargs=arguments)
    finally:
        _eager.waiting = None
