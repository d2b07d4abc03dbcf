"""Several apps, several projects on one database: a message goes out through its own app only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from kombu import Connection, Exchange

from jaiminho_celery import hooks, messages
from jaiminho_celery.app import OutboxCelery
from parviraptor_celery import broker
from tests.integration.test_celery_messages import make_app
from tests.integration.test_message_batches import frozen
from tests.integration.waiting import copies, leave, outcomes, rounds

ON_POSTGRESQL = pytest.mark.parametrize("using", ["postgresql"], indirect=True)
WAITING, SENT = ("WAITING", 0), ("SENT", 0)


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    broker.close_breaker()
    yield
    broker.close_breaker()


def app_of(name: str, url: str, queue: str) -> OutboxCelery:
    app = OutboxCelery(name, broker=url, set_as_current=False)
    app.conf.update(task_default_queue=queue, task_ignore_result=True)
    return app


@ON_POSTGRESQL
def test_a_message_of_an_app_that_this_process_lacks_waits_for_one_that_has_it(
    using: str, redis_url: str, rabbitmq_url: str, queue_name: str
) -> None:
    billing = app_of("billing", redis_url, queue_name)
    leave(using, frozen(billing, 7))
    messages._apps.pop("billing")
    make_app(OutboxCelery, rabbitmq_url, queue_name)

    rounds(using, 2)
    assert outcomes(using) == [WAITING]

    messages.remember(billing)
    rounds(using, 1)
    assert outcomes(using) == [SENT]
    assert copies(redis_url, queue_name) == {7: 1}


@ON_POSTGRESQL
def test_each_of_two_apps_sends_to_its_own_broker(
    using: str, redis_url: str, rabbitmq_url: str, queue_name: str
) -> None:
    first = app_of("first", redis_url, queue_name)
    second = app_of("second", rabbitmq_url, queue_name)
    leave(using, frozen(first, 1), frozen(second, 2), frozen(first, 3))

    rounds(using, 1)

    assert outcomes(using) == [SENT] * 3
    assert copies(redis_url, queue_name) == {1: 1, 3: 1}
    assert copies(rabbitmq_url, queue_name) == {2: 1}


@ON_POSTGRESQL
def test_an_app_that_cannot_send_repeats_no_message_of_another(
    using: str, redis_url: str, queue_name: str
) -> None:
    good = app_of("good", redis_url, queue_name)
    bad = app_of("bad", "no-such-transport://nowhere", queue_name)
    of_bad = [{**message, "app": "bad"} for message in frozen(good, 2)]
    leave(using, frozen(good, 1), of_bad, frozen(good, 3))

    rounds(using, 3)

    assert outcomes(using)[::2] == [SENT, SENT]
    assert outcomes(using)[1][0] == "WAITING"
    assert copies(redis_url, queue_name) == {1: 1, 3: 1}
    assert bad.main == "bad"


def test_two_apps_of_one_name_are_warned_about(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = app_of("the same", redis_url, "one")
    assert not caplog.records
    app_of("the same", redis_url, "another")
    assert "two OutboxCelery apps are named 'the same'" in caplog.text
    assert kept.main == "the same"


@ON_POSTGRESQL
def test_an_event_for_monitors_that_fails_repeats_no_task(
    using: str, rabbitmq_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exchange is of another type at the broker."""
    exchange: dict[str, Any] = {"event_exchange": f"{queue_name}-events"}
    app = make_app(OutboxCelery, rabbitmq_url, queue_name)
    app.conf.update(task_send_sent_event=True, event_exchange_type="topic", **exchange)
    app.outbox_using = using
    with Connection(rabbitmq_url) as connection:
        declared = Exchange(exchange["event_exchange"], "direct")(connection.default_channel)
        declared.declare()
        try:
            with transaction.atomic(using=using):
                app.tasks["wire.add"].delay(1, 2)
            assert hooks.flush()
            rounds(using, 3)
            assert set(outcomes(using)) <= {SENT}
            assert copies(rabbitmq_url, queue_name) == {1: 1}
        finally:
            declared.delete()
