"""Puts frozen messages on the wire, many at a time, and tells of each whether it arrived.

- Redis: one pipeline (kombu 5.7 or later). A connection that breaks under it leaves open how much
  arrived; so all of it counts as not arrived, and is repeated.
- RabbitMQ: everything is published before the first confirm is awaited. A confirmed message is
  safe with the broker; one that no queue takes comes back (``mandatory``), and has failed.
- Any other transport, and kombu 5.6: one by one.

A message that is wrong by itself fails alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from celery import Celery
from kombu import Connection, Producer

from parviraptor_celery import broker
from parviraptor_celery.conf import settings

from .confirms import ConfirmingChannel
from .entities import thawed
from .exceptions import NotRouted

Message = dict[str, Any]

_OURS = ("app", "declare", "properties")

REDIS_COMMANDS = 100_000
"""More than the messages of a batch ever make, so that each batch is one round trip."""


@dataclass
class Delivery:
    """What became of each message, by its position."""

    app: Celery
    messages: list[Message]
    arrived: set[int] = field(default_factory=set)
    errors: dict[int, Exception] = field(default_factory=dict)

    def open(self) -> list[int]:
        """Return the positions of the messages whose fate is open."""
        return [
            at
            for at in range(len(self.messages))
            if at not in self.arrived and at not in self.errors
        ]


def send(app: Celery, messages: list[Message]) -> list[Exception | None]:
    """Publish ``messages`` in order; return what went wrong with each, None if it arrived.

    When the broker fails, its error stands for every message that did not arrive for certain
    (``BrokerAway``: nothing was tried).
    """
    delivery = Delivery(app, messages)
    try:
        broker.use(app, lambda connection: _deliver(delivery, connection))
    except broker.FAILURES as error:
        delivery.errors |= dict.fromkeys(delivery.open(), error)
    return [delivery.errors.get(at) for at in range(len(messages))]


def _deliver(delivery: Delivery, connection: Connection) -> None:
    if connection.transport.driver_type == "amqp":
        _confirm_all(delivery, connection)
        return
    producer = Producer(connection, auto_declare=False)
    _declare(delivery, producer, delivery.open())
    if getattr(producer, "supports_batch_publish", False):
        _pipeline(delivery, producer)
    else:
        for at in _published(delivery, producer):
            delivery.arrived.add(at)


def _pipeline(delivery: Delivery, producer: Producer) -> None:
    with producer.batch(max_size=REDIS_COMMANDS):  # type: ignore[attr-defined]
        buffered = list(_published(delivery, producer))
    delivery.arrived.update(buffered)


def _published(delivery: Delivery, producer: Producer) -> Iterator[int]:
    """Publish what is open and yield its positions; what is wrong by itself is left out."""
    connection: Any = producer.connection
    for at in delivery.open():
        try:
            _publish(delivery.app, producer, delivery.messages[at])
        except (*broker.FAILURES, *connection.connection_errors):
            raise
        except Exception as error:  # whatever a message makes a serializer or transport raise
            delivery.errors[at] = error
        else:
            yield at


def _confirm_all(delivery: Delivery, connection: Connection) -> None:
    """Publish what is open, then await the confirms.

    A message whose exchange or queue is wrong makes the broker close the channel, and with it go
    the confirms of the others. These are then published one by one.
    """
    try:
        _confirm(delivery, connection, delivery.open())
    except connection.channel_errors:
        for at in delivery.open():
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
        delivery.arrived |= channel.confirmed - channel.refused
        for at in channel.refused:
            delivery.errors[at] = _refusal(connection, delivery.messages[at])


def _publish_on(channel: ConfirmingChannel, delivery: Delivery, positions: list[int]) -> None:
    producer, connection = Producer(channel.channel, auto_declare=False), channel.connection
    _declare(delivery, producer, positions)
    for at in positions:
        message = delivery.messages[at]
        route = (
            message["exchange"],
            message["routing_key"],
            message["properties"].get("correlation_id"),
        )
        try:
            channel.publish(at, route, partial(_publish, delivery.app, producer, message))
        except (*broker.FAILURES, *connection.connection_errors, *connection.channel_errors):
            raise
        except Exception as error:
            delivery.errors[at] = error


def _refusal(connection: Any, message: Message) -> NotRouted:
    # It may have been deleted since this connection declared it: declare it again next time.
    connection.declared_entities.clear()
    return NotRouted(
        f"no queue takes what goes to exchange {message['exchange']!r} with routing key "
        f"{message['routing_key']!r}"
    )


def _declare(delivery: Delivery, producer: Producer, positions: list[int]) -> None:
    """Declare what has to exist before the messages go out; kombu does so once per connection.

    Redis knows an exchange only on connections that declared it, and loses what is sent to
    another; so all queues are declared before a message to a named exchange.
    """
    messages = [delivery.messages[at] for at in positions]
    kept = {
        json.dumps(one, sort_keys=True, default=str): one for m in messages for one in m["declare"]
    }
    if any(message["exchange"] for message in messages):
        kept |= {json.dumps(name): name for name in delivery.app.amqp.queues}
    for _, one in sorted(kept.items()):
        if (entity := thawed(one, delivery.app)) is not None:
            producer.maybe_declare(entity)


def _text_of(entity: object) -> str:
    return json.dumps(entity, sort_keys=True, default=str)


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
