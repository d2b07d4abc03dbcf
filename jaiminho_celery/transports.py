"""How each kind of broker gets many messages at once, and how it is known what arrived.

- Redis: one pipeline (kombu 5.7 or later). A connection that breaks under it leaves open how much
  arrived; so all of it counts as not arrived, and is repeated.
- RabbitMQ: everything is published before the first confirm is awaited. A confirmed message is
  safe with the broker; one that no queue takes comes back (``mandatory``), and has failed.
- Any other transport, and kombu 5.6: one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import NoneType
from typing import Any

from celery import Celery
from kombu import Connection, Producer

from parviraptor_celery import broker
from parviraptor_celery.conf import settings

from .confirms import ConfirmingChannel
from .entities import thawed
from .exceptions import Nacked, NotRouted

Message = dict[str, Any]

_OURS = ("app", "declare", "properties")

_TYPES: dict[str, type | tuple[type, ...]] = {
    "app": (str, NoneType),
    "body": bytes,
    "exchange": str,
    "routing_key": str,
    "headers": dict,
    "declare": list,
    "properties": dict,
}
"""What is used of a message before it is known whether anything is wrong with it."""

REDIS_COMMANDS = 100_000
"""More than the messages of a batch ever make, so that each batch is one round trip."""


@dataclass
class Delivery:
    """What became of each message, by its position."""

    app: Celery
    messages: list[Message]
    arrived: set[int] = field(default_factory=set)
    errors: dict[int, Exception] = field(default_factory=dict)

    def open(self, among: Iterable[int] | None = None) -> list[int]:
        """Return the positions of the messages whose fate is open."""
        positions = range(len(self.messages)) if among is None else among
        return [at for at in positions if at not in self.arrived and at not in self.errors]


def is_message(value: object) -> bool:
    """Return whether ``value`` looks like a message that was frozen."""
    return isinstance(value, dict) and all(
        name in value and isinstance(value[name], kind) for name, kind in _TYPES.items()
    )


def deliver(delivery: Delivery, connection: Connection, among: Iterable[int]) -> None:
    """Publish what is open of ``among``, and note in ``delivery`` what became of each.

    Raises what the broker's failure raises; what arrived until then is noted.
    """
    positions = delivery.open(among)
    if connection.transport.driver_type == "amqp":
        _confirm_all(delivery, connection, positions)
        return
    producer = Producer(connection, auto_declare=False)
    _declare(delivery, producer, positions)
    if getattr(producer, "supports_batch_publish", False):
        _pipeline(delivery, producer, positions)
    else:
        for at in _published(delivery, producer, positions):
            delivery.arrived.add(at)


def _pipeline(delivery: Delivery, producer: Producer, positions: list[int]) -> None:
    """Publish by one pipeline; if a command in it was refused, one by one to find out which.

    The pipeline doesn't tell, and has executed the others: these arrive twice.
    """
    connection: Any = producer.connection
    try:
        with producer.batch(max_size=REDIS_COMMANDS):  # type: ignore[attr-defined]
            buffered = list(_published(delivery, producer, positions))
        delivery.arrived.update(buffered)
    except Exception as error:
        if broker.means_away(error, connection):
            raise
        for at in _published(delivery, producer, positions):
            delivery.arrived.add(at)


def _published(delivery: Delivery, producer: Producer, positions: list[int]) -> Iterator[int]:
    """Publish what is open and yield its position; what is wrong by itself is left out."""
    connection: Any = producer.connection
    for at in delivery.open(positions):
        try:
            _publish(delivery.app, producer, delivery.messages[at])
        except Exception as error:  # whatever a message makes a serializer or transport raise
            if broker.means_away(error, connection):
                raise
            delivery.errors[at] = error
        else:
            yield at


def _confirm_all(delivery: Delivery, connection: Connection, positions: list[int]) -> None:
    """Publish everything, then await the confirms.

    A message whose exchange or queue is wrong makes the broker close the channel, and with it go
    the confirms of the others. These are then published one by one.
    """
    try:
        _confirm(delivery, connection, positions)
    except connection.channel_errors:
        for at in delivery.open(positions):
            try:
                _confirm(delivery, connection, [at])
            except connection.channel_errors as error:
                delivery.errors[at] = error  # type: ignore[assignment]


def _confirm(delivery: Delivery, connection: Connection, positions: list[int]) -> None:
    channel = ConfirmingChannel.of(connection)
    channel.begin()
    try:
        _publish_on(channel, delivery, positions)
        channel.await_confirms(settings.BROKER_TIMEOUT_SECONDS)
    except Exception:
        channel.forget()
        raise
    finally:
        delivery.arrived |= channel.confirmed - channel.unrouted
        delivery.errors |= {at: Nacked("the broker refused to take it") for at in channel.refused}
        for at in channel.unrouted:
            delivery.errors[at] = _unrouted(connection, delivery.messages[at])


def _publish_on(channel: ConfirmingChannel, delivery: Delivery, positions: list[int]) -> None:
    producer, connection = Producer(channel.channel, auto_declare=False), channel.connection
    _declare(delivery, producer, positions)
    for at in delivery.open(positions):
        message = delivery.messages[at]
        route = (
            message["exchange"],
            message["routing_key"],
            message["properties"].get("correlation_id"),
        )
        try:
            channel.publish(at, route, partial(_publish, delivery.app, producer, message))
        except Exception as error:
            closed = isinstance(error, connection.channel_errors)
            if closed or broker.means_away(error, connection):
                raise
            delivery.errors[at] = error


def _unrouted(connection: Any, message: Message) -> NotRouted:
    # It may have been deleted since this connection declared it: declare it again next time.
    connection.declared_entities.clear()
    return NotRouted(
        f"no queue takes what goes to exchange {message['exchange']!r} with routing key "
        f"{message['routing_key']!r}"
    )


def _declare(delivery: Delivery, producer: Producer, positions: list[int]) -> None:
    """Declare what has to exist before the messages go out; kombu does so once per connection.

    Redis knows an exchange only on connections that declared it, and loses what is sent to
    another; so all queues are declared before a message to a named exchange. What can't be
    declared is the error of the messages that ask for it.
    """
    is_amqp = _is_amqp(producer)
    askers: dict[str, list[int]] = {}
    for at in positions:
        message = delivery.messages[at]
        try:
            texts = [_text_of(kept) for kept in message["declare"]]
        except (TypeError, ValueError) as error:  # an argument of a queue that JSON doesn't know
            delivery.errors[at] = error
            continue
        for text in texts:
            askers.setdefault(text, []).append(at)
        if message["exchange"] and not is_amqp:
            for name in delivery.app.amqp.queues:
                askers.setdefault(_text_of(name), [])
    for text in sorted(askers):
        try:
            if (entity := thawed(json.loads(text), delivery.app)) is not None:
                producer.maybe_declare(entity)
        except Exception as error:
            connection: Any = producer.connection
            closed = is_amqp and isinstance(error, connection.channel_errors)
            if closed or broker.means_away(error, connection):
                raise
            delivery.errors |= dict.fromkeys(askers[text], error)


def _is_amqp(producer: Producer) -> bool:
    connection: Any = producer.connection
    return bool(connection.transport.driver_type == "amqp")


def _text_of(entity: object) -> str:
    return json.dumps(entity)


def _publish(app: Celery, producer: Producer, message: Message) -> None:
    options = {name: value for name, value in message.items() if name not in _OURS}
    if options["expiration"] is not None:
        options["expiration"] = _seconds_until(options["expiration"])
    mandatory = _is_for_somebody(app, message)
    producer.publish(**options, **message["properties"], mandatory=mandatory, retry=False)


def _is_for_somebody(app: Celery, message: Message) -> bool:
    """Return whether it is an error if no queue takes the message.

    That is so for a task. Celery's events, and broadcasts, are for whoever listens, if anybody.
    """
    if "task" not in message["headers"]:
        return False
    if not message["exchange"]:
        return True
    exchanges = {queue.exchange.name: queue.exchange for queue in app.amqp.queues.values()}
    exchange = exchanges.get(message["exchange"])
    return exchange is None or exchange.type != "fanout"


def _seconds_until(expiration: datetime) -> float:
    """Return the seconds until the message expires: the broker counts from the publish."""
    return max(0.0, (expiration - datetime.now(UTC)).total_seconds())
