"""Publishes kicks: small messages that say where work waits, and may be lost.

A request must not hang because the broker is away, so a kick is tried once, within
``BROKER_TIMEOUT_SECONDS``, and after a failure the breaker stays open for a few seconds. The
row it was about is safe either way: the sweep finds it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from celery import Celery, current_app
from kombu import pools
from kombu.exceptions import OperationalError

from . import signals
from .conf import settings

_open_until: dict[int, float] = {}
_connections: dict[tuple[int, int, float], Any] = {}
_eager = threading.local()


def kick(task: str, **kwargs: Any) -> bool:
    """Publish ``task`` with ``kwargs`` (names and ids only); return whether that worked.

    Under ``task_always_eager`` the task runs at once, in this thread; kicks that it sends in
    its turn run after it, not inside it, so a chain of jobs can't exhaust the stack.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    if app.conf.task_always_eager:
        _run_eagerly(app, task, kwargs)
        return True
    if time.monotonic() < _open_until.get(os.getpid(), 0):
        return False
    try:
        with pools.producers[_connection(app)].acquire(block=True) as producer:
            app.send_task(task, kwargs=kwargs, producer=producer, retry=False, ignore_result=True)
    except (OperationalError, OSError) as error:
        _open_until[os.getpid()] = time.monotonic() + settings.BROKER_BREAKER_SECONDS
        signals.kick_failed.send_robust(sender=task, error=error)
        return False
    return True


def close_breaker() -> None:
    """Forget that the broker was away: the next kick is tried at once."""
    _open_until.clear()


def _connection(app: Celery) -> Any:
    """Return this process's connection for kicks, with short timeouts."""
    seconds = settings.BROKER_TIMEOUT_SECONDS
    key = (os.getpid(), id(app), seconds)
    if key not in _connections:
        options = dict(app.conf.broker_transport_options or {})
        connection = app.connection_for_write(connect_timeout=seconds)
        options.update(_timeouts(connection.transport_cls, seconds))
        _connections[key] = connection.clone(transport_options=options)
    return _connections[key]


def _timeouts(transport: object, seconds: float) -> dict[str, Any]:
    name = str(transport)
    if "redis" in name or "valkey" in name:
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
