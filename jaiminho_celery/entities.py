"""Queues and exchanges as plain data, so that whoever publishes a message can declare them."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Exchange, Queue, binding

_DECLARED = frozenset(
    {"name", "type", "arguments", "durable", "auto_delete", "delivery_mode", "no_declare"}
    | {"exchange", "routing_key", "queue_arguments", "binding_arguments", "bindings"}
    | {"exclusive", "expires", "message_ttl", "max_length", "max_length_bytes", "max_priority"}
)


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
