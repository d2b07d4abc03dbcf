"""Celery messages as events: frozen where they are sent, put on the wire after the commit."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

from celery import Celery
from django.utils import timezone
from django.utils.module_loading import import_string
from kombu import Producer

from parviraptor_celery import broker

from . import registry, wire
from .conf import settings
from .constants import PublishStrategyType
from .exceptions import NotNow
from .registry import Call, OutboxFunction
from .send import WRITE
from .wire import Message

STREAM = "celery"
NAME = "celery.message"
PARKED_ROUNDS = 2
"""So many rounds of the relay before it is due, a parked message goes to the broker."""

_apps: WeakValueDictionary[str, Celery] = WeakValueDictionary()


class Capture(Producer):
    """A producer that keeps what it is given instead of publishing it; does no I/O.

    What it keeps is what would have gone to the broker: the body is serialized and compressed
    here, and stays the same bytes from now on.
    """

    def __init__(self, connection: Any) -> None:
        self._bound_to = connection
        self.messages: list[dict[str, Any]] = []
        super().__init__(None, auto_declare=False)  # type: ignore[arg-type]

    @property
    def connection(self) -> Any:
        return self._bound_to

    def publish(
        self,
        body: Any,
        routing_key: str | None = None,
        delivery_mode: Any = None,
        mandatory: bool = False,
        immediate: bool = False,
        priority: int = 0,
        content_type: str | None = None,
        content_encoding: str | None = None,
        serializer: str | None = None,
        headers: dict[str, Any] | None = None,
        compression: str | None = None,
        exchange: Any = None,
        retry: bool = False,
        retry_policy: Any = None,
        declare: Any = None,
        expiration: float | None = None,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        **properties: Any,
    ) -> None:
        """Keep the message; retries and timeouts are the relay's business."""
        headers = {} if headers is None else dict(headers)
        exchange, delivery_mode = self._delivery_details(
            exchange or self.exchange,  # type: ignore[arg-type]
            delivery_mode,
        )
        body, content_type, content_encoding = self._prepare(
            body, serializer, content_type, content_encoding, compression, headers
        )
        self.messages.append(
            {
                "body": body.encode() if isinstance(body, str) else bytes(body),
                "exchange": exchange,
                "routing_key": routing_key or "",
                "delivery_mode": delivery_mode,
                "priority": priority,
                "content_type": content_type,
                "content_encoding": content_encoding,
                "headers": headers,
                "expiration": expiration,
                "queues": [entity.name for entity in declare or () if hasattr(entity, "exchange")],
                "properties": properties,
            }
        )


def remember(app: Celery) -> None:
    """Let messages of ``app`` be published by it, in this process, rather than by another app."""
    if app.main:
        _apps[app.main] = app


def publish(messages: list[Message], app: str | None = None) -> None:
    """Put the frozen messages of one event on the wire."""
    (error,) = publish_many([([messages], {"app": app})])
    if error is not None:
        raise error


def publish_many(calls: list[Call]) -> list[Exception | None]:
    """Put the frozen messages of many events on the wire; return what went wrong with each."""
    errors: list[Exception | None] = [None] * len(calls)
    for app, positions in _by_app(calls).items():
        batches = [calls[at][0][0] for at in positions]
        sent = iter(wire.send(app, [message for batch in batches for message in batch]))
        for at, batch in zip(positions, batches, strict=True):
            errors[at] = _first(list(islice(sent, len(batch))))
    return errors


def enqueue(app: Celery, messages: list[Message], using: str | None = None) -> None:
    """Write messages of ``app`` that belong together as one event, in the caller's transaction.

    A task that is due only beyond PARK_BEYOND_SECONDS stays in the database until shortly before:
    no worker holds it, and no visibility timeout delivers it again and again meanwhile
    (celery#2481, celery#5935).

    Args:
        using: the database; by default where the router writes ``Event``.

    Raises:
        PayloadTooLarge, NotSerializable: before anything is written.
    """
    function = FUNCTION if using is None else replace(FUNCTION, using=using)
    kwargs = {"app": app.main}
    import_string(WRITE)(function, (messages,), kwargs, run_after=_parked_until(messages))


def _by_app(calls: list[Call]) -> dict[Celery, list[int]]:
    """Return the positions of the calls by the app that sends them: the one that froze them.

    Where this process has no app of that name, its own is as good.
    """
    found: dict[Celery, list[int]] = {}
    for at, (_, kwargs) in enumerate(calls):
        app = _apps.get(kwargs.get("app") or "") or broker.this_app()
        found.setdefault(app, []).append(at)
    return found


def _first(errors: list[Exception | None]) -> Exception | None:
    """Return the first error of an event's messages; that of an absent broker as ``NotNow``."""
    found = [error for error in errors if error is not None]
    if not found or not isinstance(found[0], broker.FAILURES):
        return found[0] if found else None
    away = NotNow(f"the broker is away ({type(found[0]).__name__})")
    away.__cause__ = found[0]
    return away


def _parked_until(messages: list[Message]) -> datetime | None:
    """Return when messages that are due far ahead go to the broker; None means now."""
    horizon = settings.PARK_BEYOND_SECONDS
    if horizon is None or any(_is_delayed_by_broker(message) for message in messages):
        return None
    etas = [eta for message in messages if (eta := message["headers"].get("eta"))]
    if not etas:
        return None
    due = min(datetime.fromisoformat(eta) for eta in etas)
    if due - timezone.now() <= timedelta(seconds=horizon):
        return None
    return due - timedelta(seconds=min(horizon, PARKED_ROUNDS * settings.RELAY_INTERVAL_SECONDS))


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
