"""Publisher confirms by the batch: first publish everything, then wait (RabbitMQ).

kombu's own ``confirm_publish`` waits after each message, which is six to nine times slower.
Only public names of py-amqp are used. https://www.rabbitmq.com/docs/confirms
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

_channels: WeakKeyDictionary[Any, ConfirmingChannel] = WeakKeyDictionary()


class ConfirmingChannel:
    """A channel of its own on which the broker confirms every message.

    Counts what is published on it, since confirms name messages by their number; so nobody else
    may publish on it, and after an error it is thrown away.
    """

    @classmethod
    def of(cls, connection: Any) -> ConfirmingChannel:
        """Return the channel of a kombu connection, opened anew where there is none."""
        known = _channels.get(connection)
        if known is None or known.channel.connection is not connection.connection:
            known = _channels[connection] = cls(connection)
        return known

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.channel.confirm_select()
        self.channel.events["basic_ack"].add(self._on_ack)
        self.channel.events["basic_nack"].add(self._on_nack)
        self.channel.events["basic_return"].add(self._on_return)
        self.published = 0
        self.awaited: dict[int, int] = {}
        """Positions of the messages that are not confirmed yet, by their number."""
        self.confirmed, self.refused, self.unrouted = set[int](), set[int](), set[int]()
        self._routes: dict[tuple[Any, ...], set[int]] = {}

    def begin(self) -> None:
        """Start a batch: forget the positions of the last one."""
        self.confirmed, self.refused, self.unrouted = set(), set(), set()
        self._routes = {}

    def publish(self, position: int, route: tuple[Any, ...], send: Callable[[], Any]) -> None:
        """Call ``send``, which publishes one message on the channel; don't wait.

        ``route`` is exchange, routing key and correlation id, by which a message is known when
        no queue took it.
        """
        send()
        self.published += 1
        self.awaited[self.published] = position
        self._routes.setdefault(route, set()).add(position)

    def await_confirms(self, patience_seconds: float) -> None:
        """Wait until everything is confirmed or refused.

        Raises:
            TimeoutError: for so long the broker said nothing.
        """
        while self.awaited:
            self.connection.drain_events(timeout=patience_seconds)

    def forget(self) -> None:
        """Never use this channel again.

        The polite way of closing it would wait for an answer. It goes with its connection, or
        was closed by the broker already.
        """
        _channels.pop(self.connection, None)

    def _on_ack(self, number: int, multiple: bool) -> None:
        self.confirmed.update(self._settled(number, multiple))

    def _on_nack(self, number: int, multiple: bool) -> None:
        self.refused.update(self._settled(number, multiple))

    def _on_return(self, error: Any, exchange: str, routing_key: str, message: Any) -> None:
        # Comes before the confirm of the same message: "taken care of", though by no queue.
        route = (exchange, routing_key, message.properties.get("correlation_id"))
        self.unrouted.update(self._routes.get(route, ()))

    def _settled(self, number: int, multiple: bool) -> list[int]:
        numbers = [one for one in self.awaited if one <= number] if multiple else [number]
        return [self.awaited.pop(one) for one in numbers if one in self.awaited]
