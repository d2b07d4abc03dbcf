"""Publishes to the broker without ever making a request wait for it. Both apps use this module.

Kicks are small messages that say where work waits, and may be lost: the row they are about is
safe, and the sweep finds it. So a kick is tried once, within ``BROKER_TIMEOUT_SECONDS``, and
after a failure the breaker stays open for ``BROKER_BREAKER_SECONDS``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery, current_app
from kombu import Producer, pools
from kombu.exceptions import OperationalError

from . import signals
from .conf import settings

FAILURES = (OperationalError, OSError)

_open_until: dict[int, float] = {}
_connections: WeakKeyDictionary[Celery, dict[tuple[object, ...], Any]] = WeakKeyDictionary()
_eager = threading.local()
_silences: list[object] = []


class BrokerAway(OperationalError):
    """The broker failed a moment ago; it is left alone for a few seconds."""


def kick(task: str, **kwargs: Any) -> bool:
    """Publish ``task`` with ``kwargs`` (names and ids only); return whether that worked.

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
        with producing(app) as producer:
            app.send_task(task, kwargs=kwargs, producer=producer, retry=False, ignore_result=True)
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


@contextmanager
def producing(app: Celery, *, confirmed: bool = False) -> Iterator[Producer]:
    """Yield a producer with short timeouts; a failure inside the block opens the breaker.

    With ``confirmed`` RabbitMQ has to confirm each message (without, it may lose one silently:
    celery#5410).

    Raises:
        BrokerAway: the breaker is open; nothing was tried.
    """
    if time.monotonic() < _open_until.get(os.getpid(), 0):
        raise BrokerAway("the broker failed a moment ago")
    try:
        with pools.producers[_connection(app, confirmed)].acquire(block=True) as producer:
            yield producer
    except FAILURES:
        _open_until[os.getpid()] = time.monotonic() + settings.BROKER_BREAKER_SECONDS
        raise


def close_breaker() -> None:
    """Forget that the broker was away: the next message is tried at once."""
    _open_until.clear()


def _connection(app: Celery, confirmed: bool) -> Any:
    """Return this process's connection with short timeouts."""
    seconds = settings.BROKER_TIMEOUT_SECONDS
    key = (os.getpid(), seconds, confirmed)
    known = _connections.setdefault(app, {})
    if key not in known:
        connection = app.connection_for_write(connect_timeout=seconds)
        options = {**(app.conf.broker_transport_options or {}), **_timeouts(connection, seconds)}
        if confirmed and connection.transport.driver_type == "amqp":
            options["confirm_publish"] = True
        known[key] = connection.clone(transport_options=options)
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
