"""What lies at a broker, byte for byte, and apps of both kinds that send the same things to it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from uuid import UUID

import redis
from celery import Celery
from celery._state import (
    _get_active_apps,  # type: ignore[attr-defined]
    _task_stack,
    _tls,
)
from kombu import Connection, Exchange, Queue, pools

from jaiminho_celery.app import OutboxCelery
from parviraptor_celery import broker

NOW = datetime.now(UTC)
LATER = timedelta(hours=1)
KEY_PREFIX = "all-keys-"
UUID_USERS = ("celery.canvas.uuid", "celery.app.base.uuid", "celery.app.task.uuid")
SLOWEST_MS = 30_000
"""What may pass between a native message and its twin; their times to live differ by that."""


class Broker:
    """One broker, and the queues of one test there: direct, topic and fanout."""

    def __init__(self, url: str, name: str, *, key_prefix: str = "") -> None:
        self.url, self.name, self.key_prefix = url, name, key_prefix
        self.connection = Connection(url, transport_options=self.transport_options)
        exchanges = [Exchange(f"{name}-{kind}", kind) for kind in ("topic", "fanout")]
        self.queues = [
            Queue(name),
            Queue(f"{name}-named", Exchange(f"{name}-direct"), routing_key="named"),
            Queue(f"{name}-topic", exchanges[0], routing_key="some.#"),
            Queue(f"{name}-fanout", exchanges[1]),
        ]
        if self.is_redis:
            self.client = redis.Redis.from_url(url)
            self.pubsub = self.client.pubsub(ignore_subscribe_messages=True)
            self.pubsub.psubscribe(f"*{name}-*")
        for queue in self.queues:
            queue(self.connection.default_channel).declare()

    @property
    def is_redis(self) -> bool:
        return self.url.startswith("redis")

    @property
    def transport_options(self) -> dict[str, Any]:
        """Let RabbitMQ confirm, so that what was sent is there when it is looked for."""
        if not self.is_redis:
            return {"confirm_publish": True}
        return {"global_keyprefix": self.key_prefix} if self.key_prefix else {}

    def take(self) -> dict[str, list[Any]]:
        """Return everything sent since the last call, by queue; compare with ``comparable``."""
        taken = self._taken_from_redis() if self.is_redis else self._taken_from_rabbitmq()
        return {place: messages for place, messages in taken.items() if messages}

    def close(self) -> None:
        channel = self.connection.default_channel
        for queue in self.queues:
            queue(channel).delete()
            if queue.exchange.name:
                queue.exchange(channel).delete()
        if self.is_redis:
            self.pubsub.close()
            self.client.close()
        self.connection.release()
        close_pools()

    def _taken_from_redis(self) -> dict[str, list[Any]]:
        lists = {}
        for key in sorted(self.client.scan_iter(f"*{self.name}*", _type="list", count=1000)):
            lists[key.decode()] = [json.loads(raw) for raw in self.client.lrange(key, 0, -1)]
            self.client.delete(key)
        told = []
        self.pubsub.ping("everything before this")
        while (message := self.pubsub.get_message(timeout=5) or {"type": None})["type"] != "pong":
            if message["type"] == "pmessage":
                told.append((message["channel"].decode(), json.loads(message["data"])))
        return {**lists, "published": told}

    def _taken_from_rabbitmq(self) -> dict[str, list[Any]]:
        taken: dict[str, list[Any]] = {}
        channel = self.connection.default_channel
        for queue in self.queues:
            taken[queue.name] = []
            while (message := channel.basic_get(queue.name, no_ack=True)) is not None:
                info = {key: message.delivery_info[key] for key in ("exchange", "routing_key")}
                properties = {**message.properties}
                headers = properties.pop("application_headers")
                taken[queue.name].append(
                    {"body": message.body, "headers": headers, "properties": properties, **info}
                )
        return taken


def close_pools() -> None:
    """Close the connections that applications left open, and let each open new ones."""
    pools.reset()
    for app in _get_active_apps():
        app._pool = None
        if "amqp" in vars(app):
            app.amqp._producer_pool = None


def comparable(taken: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out delivery tags; say of a time to live only that it is one (see ``lifetimes``)."""
    for message in _messages(taken):
        properties = message["properties"]
        properties.pop("delivery_tag", None)
        if "expiration" in properties:
            properties["expiration"] = "some"
    return taken


def lifetimes(taken: dict[str, list[Any]]) -> list[int]:
    """Return the times to live in milliseconds."""
    properties = [message["properties"] for message in _messages(taken)]
    return [int(one["expiration"]) for one in properties if "expiration" in one]


def assert_equal_on_the_wire(native: dict[str, list[Any]], ours: dict[str, list[Any]]) -> None:
    left, left_by_us = lifetimes(native), lifetimes(ours)
    assert comparable(ours) == comparable(native)
    for expected, actual in zip(left, left_by_us, strict=True):
        assert expected - SLOWEST_MS <= actual <= expected


def application(kind: type[Celery], at: Broker, **conf: Any) -> Any:
    """Return an app whose ids, clock and origin are those of every other app made here."""
    app = kind("wire", broker=at.url, set_as_current=False)
    app.conf.update(
        task_default_queue=at.name,
        task_queues=at.queues,
        broker_transport_options=at.transport_options,
        result_backend="cache+memory://",
        accept_content=["json", "pickle"],
        **conf,
    )
    app.now = lambda: NOW  # type: ignore[method-assign]
    app._local.oid = "reply-to-this-thread"  # type: ignore[attr-defined]

    @app.task(name="wire.add", shared=False, typing=False)
    def add(*args: Any, **kwargs: Any) -> None: ...

    @app.task(name="wire.drop", shared=False, typing=False, ignore_result=True)
    def drop(*args: Any, **kwargs: Any) -> None: ...

    app.finalize()
    return app


def pair(at: Broker, **conf: Any) -> tuple[Any, Any]:
    """Return an app of Celery's own and one of ours, alike in all else."""
    return application(Celery, at, **conf), application(OutboxCelery, at, **conf)


@contextmanager
def acting(app: Any, request: dict[str, Any] | None = None) -> Iterator[None]:
    """Let ``app`` be the current one, its ids be counted, and a task of it run, if asked to."""
    count = itertools.count(1)
    before, task = _tls.current_app, app.tasks["wire.add"]
    app.set_current()
    broker.close_breaker()
    fakes = [
        mock.patch(user, side_effect=lambda: str(UUID(int=next(count)))) for user in UUID_USERS
    ]
    for fake in fakes:
        fake.start()
    if request is not None:
        task.push_request(called_directly=False, **request)
        _task_stack.push(task)
    try:
        yield
    finally:
        if request is not None:
            _task_stack.pop()
            task.pop_request()
        for fake in fakes:
            fake.stop()
        _tls.current_app = before


def _messages(taken: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for place, messages in taken.items():
        for message in messages:
            yield message[1] if place == "published" else message
