"""Celery messages as events: frozen where they are sent, put on the wire after the commit."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from weakref import WeakValueDictionary

from celery import Celery
from celery.utils.time import maybe_iso8601, maybe_make_aware
from django.utils.module_loading import import_string

from parviraptor_celery import broker
from parviraptor_celery.clock import local_now

from . import holding, registry, wire
from .conf import settings
from .constants import PublishStrategyType
from .exceptions import Nacked, NotNow, UnknownFunction, UnreadableEvent
from .registry import Call, OutboxFunction
from .send import WRITE
from .transports import Message, is_message

logger = logging.getLogger("jaiminho_celery")

STREAM = "celery"
NAME = "celery.message"
PARKED_ROUNDS = 2
"""So many rounds of the relay before it is due, a parked message goes to the broker."""

_apps: WeakValueDictionary[str | None, Celery] = WeakValueDictionary()


def remember(app: Celery) -> None:
    """Let ``app_named`` find ``app``."""
    if (other := _apps.get(app.main)) is not None and other is not app:
        logger.warning(
            "two OutboxCelery apps are named %r: what either sends goes out through the last one",
            app.main,
        )
    _apps[app.main] = app


def app_named(name: str | None) -> Celery:
    """Return this process's app of that name: messages go to the broker of the app they are from.

    Raises:
        UnknownFunction: this process has no such app.
    """
    known, current = _apps.get(name), broker.this_app()
    if known is None and current.main != name:
        raise UnknownFunction(
            f"no Celery app of this process is named {name!r}; the messages wait for one that has "
            "it (an installed app's outbox.py may import it)"
        )
    return known or current


def publish(messages: list[Message]) -> None:
    """Put the frozen messages of one event on the wire."""
    (error,) = publish_many([([messages], {})])
    if error is not None:
        raise error


def publish_many(calls: list[Call]) -> list[Exception | None]:
    """Put the frozen messages of many events on the wire; return what went wrong with each."""
    errors: list[Exception | None] = [None] * len(calls)
    if holding.is_held():
        for (messages, *_), _ in calls:
            holding.take(messages)
        return errors
    by_app: dict[str | None, list[int]] = {}
    for at, call in enumerate(calls):
        if (unreadable := _problem_of(call)) is not None:
            errors[at] = unreadable
            continue
        by_app.setdefault(call[0][0][0]["app"], []).append(at)
    for name, positions in by_app.items():
        sent = _sent_by(name, [calls[at][0][0] for at in positions])
        for at, error in zip(positions, sent, strict=True):
            errors[at] = error
    return errors


def enqueue(messages: list[Message], using: str | None = None) -> None:
    """Write messages that belong together as one event, in the caller's transaction.

    A task that is due only beyond PARK_BEYOND_SECONDS stays in the database until shortly before:
    no worker holds it, and no visibility timeout delivers it again and again meanwhile
    (celery#2481, celery#5935).

    Args:
        using: the database; by default where the router writes ``Event``.

    Raises:
        PayloadTooLarge, NotSerializable: before anything is written.
    """
    function = FUNCTION if using is None else replace(FUNCTION, using=using)
    import_string(WRITE)(function, (messages,), {}, run_after=_parked_until(messages))


def _problem_of(call: Call) -> UnreadableEvent | None:
    """Return what is wrong with the row of a message that no release of ours wrote, or None.

    It must not get as far as the wire, where it would take the rest of its batch along.
    """
    batch, *others = call[0] or [None]
    if others or not (isinstance(batch, list) and batch and all(map(is_message, batch))):
        return UnreadableEvent("its body holds no Celery messages")
    return None


def _sent_by(name: str | None, batches: list[list[Message]]) -> list[Exception | None]:
    """Send batches of messages through one app; what is wrong with it concerns no other app."""
    messages = [message for batch in batches for message in batch]
    try:
        errors = iter(wire.send(app_named(name), messages))
    except Exception as error:  # its broker URL, for example
        return [error] * len(batches)
    return [_first(batch, list(islice(errors, len(batch)))) for batch in batches]


def _first(messages: list[Message], errors: list[Exception | None]) -> Exception | None:
    """Return the first error of an event's messages; that of an absent broker as ``NotNow``.

    Celery's own events (that a task was sent) may fail: the task must not be repeated for that.
    """
    tasks = [at for at, message in enumerate(messages) if "task" in message["headers"]]
    found = [error for at in tasks or range(len(messages)) if (error := errors[at]) is not None]
    if not found or not isinstance(found[0], (*broker.FAILURES, Nacked)):
        return found[0] if found else None
    away = NotNow(f"the broker takes nothing ({type(found[0]).__name__})")
    away.__cause__ = found[0]
    return away


def _parked_until(messages: list[Message]) -> datetime | None:
    """Return when messages that are due far ahead go to the broker; None means now.

    Tasks of one event go together, with the first of them: one that is due at once is never held
    back. What Celery sends along to tell monitors of a task (``task-sent``) goes with it.
    """
    horizon = settings.PARK_BEYOND_SECONDS
    if horizon is None or any(_is_delayed_by_broker(message) for message in messages):
        return None
    tasks = [message for message in messages if "task" in message["headers"]]
    etas = [eta for task in tasks if (eta := _eta_of(task)) is not None]
    if not etas or len(etas) < len(tasks):
        return None
    due = min(etas)
    if due - local_now() <= timedelta(seconds=horizon):
        return None
    return due - timedelta(seconds=min(horizon, PARKED_ROUNDS * settings.RELAY_INTERVAL_SECONDS))


def _eta_of(message: Message) -> datetime | None:
    """Return when a task is due as its worker will read it: without a time zone it is UTC."""
    try:
        eta = maybe_iso8601(message["headers"].get("eta"))
    except (TypeError, ValueError):
        return None  # no time at all, which the worker will say
    return None if eta is None else maybe_make_aware(eta)


def _is_delayed_by_broker(message: Message) -> bool:
    """Return whether the routing key says how long the broker keeps the message from now on."""
    return "celery_delayed_" in message["exchange"]


FUNCTION = OutboxFunction(
    func=publish,
    name=NAME,
    stream=STREAM,
    strategy=PublishStrategyType.PUBLISH_ON_COMMIT.value,
    publish_many=publish_many,
)
registry.register(FUNCTION)
