"""Celery messages as events: frozen where they are sent, put on the wire after the commit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kombu import Producer

from parviraptor_celery import broker

from . import holding
from .constants import PublishStrategyType
from .send import save_to_outbox_stream

STREAM = "celery"
NAME = "celery.message"


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


@save_to_outbox_stream(STREAM, PublishStrategyType.PUBLISH_ON_COMMIT, name=NAME)
def publish(messages: list[dict[str, Any]]) -> None:
    """Put frozen messages on the wire, confirmed where the broker can."""
    if holding.is_held():
        holding.take(messages)
        return
    app = broker.this_app()
    with broker.producing(app, confirmed=True) as producer:
        for message in messages:
            _publish(app, producer, dict(message))


def _publish(app: Any, producer: Producer, message: dict[str, Any]) -> None:
    known = app.amqp.queues
    names, properties = message.pop("queues"), message.pop("properties")
    if message["expiration"] is not None:
        message["expiration"] = _time_left(message)
    declare = [known[name] for name in names if name in known or known.create_missing]
    producer.publish(**message, **properties, declare=declare, retry=False)


def _time_left(message: dict[str, Any]) -> float:
    """Return the seconds until the message expires: the broker counts from the publish."""
    expires = message["headers"].get("expires")
    if not expires:
        return float(message["expiration"])
    return max(0.0, (datetime.fromisoformat(expires) - datetime.now(UTC)).total_seconds())
