"""What has arrived at the broker: a queue of the run's own, counted, read and taken away."""

from __future__ import annotations

import json
from typing import Any, Protocol

import kombu
import redis

SECONDS_PER_MESSAGE = 10
KICKS = "-kicks"


class ArrivalQueue(Protocol):
    """The queue that all peers of a run publish to."""

    url: str
    name: str

    def purge(self) -> None: ...

    def arrived(self) -> int:
        """Return how many messages lie in the queue."""

    def task_ids(self) -> list[str]:
        """Take every message out of the queue, and return the ids of their tasks."""

    def close(self) -> None:
        """Leave nothing on the server."""


class RedisQueue:
    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self._client = redis.Redis.from_url(url)
        self._taken = 0

    def purge(self) -> None:
        self._taken = 0
        self._client.unlink(self.name, self.name + KICKS)

    def arrived(self) -> int:
        return self._taken + int(self._client.llen(self.name))  # type: ignore[arg-type]

    def arrived_and_taken(self) -> int:
        """Like arrived(), but empties the queue: a million messages need not fit into memory."""
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.llen(self.name).unlink(self.name)
            self._taken += int(pipeline.execute()[0])
        return self._taken

    def task_ids(self) -> list[str]:
        messages: Any = self._client.lrange(self.name, 0, -1)
        self.purge()
        return [json.loads(message)["headers"]["id"] for message in messages]

    def close(self) -> None:
        self.purge()
        bindings = [f"_kombu.binding.{name}" for name in (self.name, self.name + KICKS)]
        self._client.unlink(*bindings)
        self._client.close()


class RabbitQueue:
    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self._connection = kombu.Connection(url)
        self._channel: Any = self._connection.channel()
        for queue in (name, name + KICKS):  # as Celery declares it
            self._channel.queue_declare(queue, durable=True, auto_delete=False)

    def purge(self) -> None:
        for queue in (self.name, self.name + KICKS):
            self._channel.queue_purge(queue)

    def arrived(self) -> int:
        return int(self._channel.queue_declare(self.name, passive=True).message_count)

    def task_ids(self) -> list[str]:
        awaited, ids = self.arrived(), []
        tag = self._channel.basic_consume(
            self.name, no_ack=True, callback=lambda message: ids.append(message.headers["id"])
        )
        while len(ids) < awaited:
            self._connection.drain_events(timeout=SECONDS_PER_MESSAGE)
        self._channel.basic_cancel(tag)
        return ids

    def close(self) -> None:
        for name in (self.name, self.name + KICKS):
            self._channel.queue_delete(name)
            self._channel.exchange_delete(name)
        self._connection.release()
