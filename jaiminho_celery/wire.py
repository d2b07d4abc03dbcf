"""Puts frozen messages on the wire, many at a time, and tells of each whether it arrived.

A message that is wrong by itself fails alone, also where it takes the connection down with it.
What ``transports`` knows of a kind of broker is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from amqp.exceptions import ConnectionForced
from celery import Celery
from kombu.exceptions import OperationalError

from parviraptor_celery import broker
from parviraptor_celery.conf import settings

from .exceptions import BreaksConnection
from .transports import Delivery, Message, deliver

BREAKS = 3
"""So many connections in a row a message has to break until it is taken for the cause."""


def send(app: Celery, messages: list[Message]) -> list[Exception | None]:
    """Publish ``messages`` in order; return what went wrong with each, None if it arrived.

    When the broker fails, its error stands for every message that did not arrive for certain
    (``BrokerAway``: nothing was tried).
    """
    delivery = Delivery(app, messages)
    error = _attempt(delivery, range(len(messages)))
    if isinstance(error, _ConnectionDied | broker.TakesNothing):
        error = _attempt_one_by_one(delivery)
    if left := delivery.open():
        said_nothing = OperationalError("the broker said nothing of the message")
        delivery.errors |= dict.fromkeys(left, error or said_nothing)
    return [delivery.errors.get(at) for at in range(len(messages))]


class _ConnectionDied(OperationalError):
    """The broker can be reached, and the connection broke while we published."""


def _attempt(delivery: Delivery, positions: Iterable[int]) -> OperationalError | OSError | None:
    """Deliver what is open of ``positions``; return the broker's error, if it failed."""
    began = time.monotonic()
    try:
        broker.use(delivery.app, lambda connection: deliver(delivery, connection, positions))
    except (broker.BrokerAway, broker.CannotConnect, broker.TakesNothing) as error:
        return error
    except broker.FAILURES as error:
        timed_out = time.monotonic() - began > settings.BROKER_TIMEOUT_SECONDS / 2
        if timed_out or isinstance(error.__cause__, ConnectionForced):
            return error
        died = _ConnectionDied(str(error))
        died.__cause__ = error
        return died
    return None


def _attempt_one_by_one(delivery: Delivery) -> OperationalError | OSError | None:
    """Find the message that breaks the connection, such as one with too large a header.

    It is to blame only if another connection came about and got through before and after it; so
    a broker that is restarted meanwhile, or a bad line, is no message's error.
    """
    for at in delivery.open():
        error = _attempt_alone(delivery, at)
        if isinstance(error, _ConnectionDied) and _answers(delivery.app):
            delivery.errors[at] = BreaksConnection(f"the connection broke each time: {error}")
        elif error is not None:
            return error
    broker.close_breaker()
    return None


def _attempt_alone(delivery: Delivery, at: int) -> OperationalError | OSError | None:
    """Deliver one message; return the broker's error if that failed ``BREAKS`` times in a row."""
    error = None
    for _ in range(BREAKS):
        broker.close_breaker()
        error = _attempt(delivery, [at])
        if not isinstance(error, _ConnectionDied) or not _answers(delivery.app):
            break
    return error


def _answers(app: Celery) -> bool:
    """Return whether the broker takes a connection and answers on it."""
    broker.close_breaker()
    try:
        broker.use(app, _ask)
    except broker.FAILURES:
        return False
    return True


def _ask(connection: Any) -> None:
    connection.channel().close()
