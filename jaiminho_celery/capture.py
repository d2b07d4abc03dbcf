"""Freezes Celery messages where they are sent: everything that the broker would have got."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery
from kombu import Producer

from .entities import frozen

_connections: WeakKeyDictionary[Celery, Any] = WeakKeyDictionary()


class Capture(Producer):
    """A producer that keeps what it is given instead of publishing it; does no I/O.

    What it keeps is what would have gone to the broker: the body is serialized and compressed
    here, and stays the same bytes from now on. What the message expires after becomes a moment,
    and what it wants declared becomes names and plain data.
    """

    def __init__(self, app: Celery, using: str | None = None, *, of_one_call: bool = False) -> None:
        self._app = app
        self._bound_to = _unopened(app)
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


def _unopened(app: Celery) -> Any:
    """Return a connection that is never opened: Celery asks it which errors are its own.

    Making one takes as long as everything else of a call, so each app has one for good.
    """
    if app not in _connections:
        _connections[app] = app.connection_for_write()
    return _connections[app]
