"""Celery messages as events: frozen where they are sent, put on the wire after the commit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from celery import Celery
from django.utils.module_loading import import_string
from kombu import Exchange, Producer, Queue, binding

from parviraptor_celery import broker

from . import registry
from .constants import PublishStrategyType
from .send import WRITE, save_to_outbox_stream

STREAM = "celery"
NAME = "celery.message"

_DECLARED = frozenset(
    {"name", "type", "arguments", "durable", "auto_delete", "delivery_mode", "no_declare"}
    | {"exchange", "routing_key", "queue_arguments", "binding_arguments", "bindings"}
    | {"exclusive", "expires", "message_ttl", "max_length", "max_length_bytes", "max_priority"}
)
_apps: WeakValueDictionary[str | None, Celery] = WeakValueDictionary()


class Capture(Producer):
    """A producer that keeps what it is given instead of publishing it; does no I/O.

    What it keeps is what would have gone to the broker: the body is serialized and compressed
    here, and stays the same bytes from now on. What the message expires after becomes a moment,
    and what it wants declared becomes names and plain data.
    """

    def __init__(self, app: Celery, using: str | None = None, *, of_one_call: bool = False) -> None:
        self._app = app
        self._bound_to = app.connection_for_write()
        self.using = using
        self.of_one_call = of_one_call
        self.also_declared: list[Any] = []
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
                "app": self._app.main,
                "body": body.encode() if isinstance(body, str) else bytes(body),
                "exchange": exchange,
                "routing_key": routing_key or "",
                "delivery_mode": delivery_mode,
                "priority": priority,
                "content_type": content_type,
                "content_encoding": content_encoding,
                "headers": headers,
                "expiration": self._moment(expiration),
                "declare": [
                    frozen(entity, self._app) for entity in (*(declare or ()), *self.also_declared)
                ],
                "properties": properties,
            }
        )

    def _moment(self, expiration: float | None) -> datetime | None:
        """Return when the message expires: the broker will count from a later publish."""
        if expiration is None:
            return None
        return datetime.now(UTC) + timedelta(seconds=float(expiration))


def frozen(entity: Any, app: Celery) -> Any:
    """Return a queue or exchange as plain data: its name, if ``app`` itself defines the queue."""
    if isinstance(entity, Queue) and dict.get(app.amqp.queues, entity.name) == entity:
        return entity.name
    kind = "queue" if isinstance(entity, Queue) else "exchange"
    return {kind: _attributes(entity)}


def thawed(kept: Any, app: Celery) -> Any:
    """Return the queue or exchange that ``frozen`` was given; None if ``app`` may not create it."""
    known: Any = app.amqp.queues
    if isinstance(kept, str):
        return known[kept] if kept in known or known.create_missing else None
    if "exchange" in kept:
        return Exchange(**kept["exchange"])
    attributes = dict(kept["queue"])
    bindings = [
        binding(**{**one, "exchange": Exchange(**one["exchange"])})
        for one in attributes.pop("bindings", ())
    ]
    exchange = Exchange(**attributes.pop("exchange", {}))
    return Queue(**attributes, exchange=exchange, bindings=bindings)


def _attributes(entity: Any) -> Any:
    """Return what differs from kombu's defaults, as far as a declaration may need it."""
    given = {name: getattr(entity, name) for name, _ in entity.attrs if name in _DECLARED}
    plain = {name: _plain(value) for name, value in given.items()}
    return {name: value for name, value in plain.items() if value not in (None, [], "")}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return _attributes(value) if hasattr(value, "attrs") else value


def remember(app: Celery) -> None:
    """Let ``app_named`` find ``app``."""
    _apps[app.main] = app


def app_named(name: str | None) -> Celery:
    """Return this process's app of that name, else its current one.

    Messages go to the broker of the app that sent them, should there be several in a process.
    """
    return _apps.get(name) or broker.this_app()


def enqueue(messages: list[dict[str, Any]], using: str | None = None) -> None:
    """Write ``messages`` into the outbox of the database ``using``, as one event."""
    function = replace(registry.find(NAME), using=using)
    import_string(WRITE)(function, (messages,), {})


@save_to_outbox_stream(STREAM, PublishStrategyType.PUBLISH_ON_COMMIT, name=NAME)
def publish(messages: list[dict[str, Any]]) -> None:
    """Put frozen messages on the wire, confirmed where the broker can."""
    app = app_named(messages[0].get("app"))
    with broker.producing(app, confirmed=True) as producer:
        for message in messages:
            _publish(app, producer, dict(message))


def _publish(app: Any, producer: Producer, message: dict[str, Any]) -> None:
    message.pop("app")
    kept, properties = message.pop("declare"), message.pop("properties")
    if message["expiration"] is not None:
        message["expiration"] = _time_left(message["expiration"])
    declare = [entity for one in kept if (entity := thawed(one, app)) is not None]
    producer.publish(**message, **properties, declare=declare, retry=False)


def _time_left(expires: datetime) -> float:
    """Return the seconds until the message expires: the broker counts from the publish."""
    return max(0.0, (expires - datetime.now(UTC)).total_seconds())
