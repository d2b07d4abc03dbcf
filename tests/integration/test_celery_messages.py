"""`OutboxCelery` puts on the wire what Celery would have put there, if the transaction commits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain
from django.db import transaction
from kombu import Connection

from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from parviraptor_celery import broker

VOLATILE_HEADERS = ("id", "root_id", "parent_id", "origin", "eta", "expires")


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    broker.close_breaker()
    yield
    broker.close_breaker()


def make_app(kind: type[Celery], url: str, queue: str) -> Any:
    app = kind("wire", broker=url, set_as_current=True)
    app.conf.update(task_default_queue=queue, task_ignore_result=True)

    @app.task(name="wire.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    app.finalize()
    return app


def drain_queue(url: str, queue: str, *, delete: bool = True) -> list[Any]:
    """Take every message from the broker: (body, headers, properties).

    Where the queue is to stay, it may also be missing.
    """
    taken = []
    with Connection(url) as connection, connection.channel() as channel:
        if not delete:
            channel.queue_declare(queue, durable=True, auto_delete=False)
        while (raw := channel.basic_get(queue, no_ack=True)) is not None:
            message = channel.message_to_python(raw) if hasattr(raw, "keys") else raw
            taken.append((message.body, message.headers, message.properties))
        if delete:
            channel.queue_delete(queue)
    return taken


@pytest.mark.django_db(transaction=True)
class TestOutboxCelery:
    def test_a_message_is_sent_after_the_commit_and_not_before(
        self, broker_url: str, queue_name: str
    ) -> None:
        app = make_app(OutboxCelery, broker_url, queue_name)
        with transaction.atomic():
            result = app.tasks["wire.add"].delay(1, 2)
            assert Event.objects.get().status == Event.Status.PUBLISHING
        ((body, headers, _),) = drain_queue(broker_url, queue_name)
        assert headers["id"] == result.id
        assert json.loads(body)[0] == [1, 2]
        assert not Event.objects.exists()

    def test_a_message_of_a_rolled_back_transaction_is_never_sent(
        self, broker_url: str, queue_name: str
    ) -> None:
        app = make_app(OutboxCelery, broker_url, queue_name)
        with app.connection_for_write() as connection:
            connection.default_channel.queue_declare(queue_name)
        with pytest.raises(ValueError, match="undo"), transaction.atomic():
            app.tasks["wire.add"].delay(1, 2)
            raise ValueError("undo")
        assert drain_queue(broker_url, queue_name) == []

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"countdown": 30},
            {"expires": 60},
            {"priority": 3, "headers": {"tenant": "blue"}},
            {"serializer": "json", "compression": "gzip"},
            {"time_limit": 20, "soft_time_limit": 10, "shadow": "shown"},
        ],
        ids=str,
    )
    def test_the_message_equals_the_one_that_celery_itself_sends(
        self, broker_url: str, queue_name: str, options: dict[str, Any]
    ) -> None:
        sent = []
        for kind in (Celery, OutboxCelery):
            app = make_app(kind, broker_url, queue_name)
            app.tasks["wire.add"].apply_async((1, 2), **options)
            ((body, headers, properties),) = drain_queue(broker_url, queue_name)
            for name in VOLATILE_HEADERS:
                assert (headers.pop(name, None) is None) == (name not in _expected(options))
            sent.append((body, headers, _comparable(properties)))
        assert sent[0] == sent[1]

    def test_a_chain_is_sent_as_a_whole(self, broker_url: str, queue_name: str) -> None:
        app = make_app(OutboxCelery, broker_url, queue_name)
        add = app.tasks["wire.add"]
        with transaction.atomic():
            chain(add.s(1, 2), add.s(3))()
        ((body, _, _),) = drain_queue(broker_url, queue_name)
        assert json.loads(body)[2]["chain"][0]["args"] == [3]

    def test_a_broker_that_is_away_loses_nothing_and_raises_nothing(self) -> None:
        app = make_app(OutboxCelery, "redis://127.0.0.1:1/0", "nowhere")
        app.tasks["wire.add"].delay(1, 2)
        event = Event.objects.get()
        assert (event.status, event.error_count) == ("WAITING", 0)
        assert "refused" in event.error_message


def _expected(options: dict[str, Any]) -> set[str]:
    present = {"id", "root_id", "origin"}
    return (
        present
        | ({"eta"} if "countdown" in options else set())
        | ({"expires"} if "expires" in options else set())
    )


def _comparable(properties: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is new in every message: ids, and the time that is left."""
    ours = {k: v for k, v in properties.items() if k not in ("correlation_id", "delivery_tag")}
    ours.pop("reply_to", None)
    if "expiration" in ours:
        ours["expiration"] = round(float(ours["expiration"]) / 10_000)
    return ours
