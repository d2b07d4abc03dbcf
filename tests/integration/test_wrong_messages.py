"""A message that is wrong by itself fails alone, though a transport calls that a broken line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any
from uuid import uuid4

import pytest
import redis
from kombu import Connection, Exchange, Queue

from jaiminho_celery import hooks, transports
from jaiminho_celery.app import OutboxCelery
from parviraptor_celery import broker
from tests.integration.black_hole import BlackHole, in_front_of
from tests.integration.test_celery_messages import make_app
from tests.integration.test_message_batches import frozen, leave_to_the_relay
from tests.integration.waiting import copies, leave, outcomes, rounds

ON_POSTGRESQL = pytest.mark.parametrize("using", ["postgresql"], indirect=True)
SENT = ("SENT", 0)

HEADERS: dict[str, Any] = {
    "a UUID": {"tenant": uuid4()},
    "a date": {"day": date(2026, 1, 1)},
    "a frame that is too large": {"trace": "x" * 140_000},
}


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    broker.close_breaker()
    yield
    hooks.flush()
    broker.close_breaker()


def leave_among_others(app: Any, using: str, **wrong: Any) -> None:
    """Leave five messages to the relay, of which the third is wrong."""
    batches = [frozen(app, number) for number in range(5)]
    batches[2] = frozen(app, 2, **wrong)
    leave(using, *batches)


def assert_only_the_third_failed(using: str, rounds_gone: int) -> None:
    third = outcomes(using)[2]
    assert outcomes(using) == [SENT, SENT, third, SENT, SENT]
    assert third == ("WAITING", rounds_gone)


@ON_POSTGRESQL
@pytest.mark.parametrize(
    ("header", "most_copies"), [("a UUID", 1), ("a date", 1), ("a frame that is too large", 3)]
)
def test_a_header_that_amqp_cannot_carry_keeps_no_neighbour_back(
    using: str, rabbitmq_url: str, queue_name: str, header: str, most_copies: int
) -> None:
    """Only the broker refuses a large frame: what came before it is not confirmed by then."""
    app = make_app(OutboxCelery, rabbitmq_url, queue_name)
    leave_among_others(app, using, headers=HEADERS[header])

    rounds(using, 3)

    assert_only_the_third_failed(using, 3)
    found = copies(rabbitmq_url, queue_name)
    assert set(found) == {0, 1, 3, 4}
    assert max(found.values()) <= most_copies
    assert broker.seconds_until_tried() == 0, "kicks go on"


@ON_POSTGRESQL
def test_an_exchange_of_a_type_that_redis_does_not_know_keeps_no_neighbour_back(
    using: str, redis_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, redis_url, queue_name)
    exchange = Exchange(f"{queue_name}-headers", type="headers")
    leave_among_others(app, using, queue=Queue(f"{queue_name}-q", exchange, routing_key="k"))

    rounds(using, 3)

    assert_only_the_third_failed(using, 3)
    assert copies(redis_url, queue_name) == {0: 1, 1: 1, 3: 1, 4: 1}
    assert broker.seconds_until_tried() == 0


@ON_POSTGRESQL
def test_a_command_that_redis_refuses_repeats_its_neighbours_once_at_most(
    using: str, redis_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, redis_url, queue_name)
    taken = f"{queue_name}-taken"
    with redis.Redis.from_url(redis_url) as client:
        client.set(taken, "no list")
        try:
            leave_among_others(app, using, queue=Queue(taken, no_declare=True))
            rounds(using, 4)
        finally:
            client.delete(taken)

    assert_only_the_third_failed(using, 4)
    found = copies(redis_url, queue_name)
    assert set(found) == {0, 1, 3, 4}
    assert max(found.values()) <= 2
    assert broker.seconds_until_tried() == 0


@ON_POSTGRESQL
def test_an_exchange_declared_with_another_type_counts_against_who_asks_for_it(
    using: str, redis_url: str, queue_name: str, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"MAX_ATTEMPTS": 2}
    app = make_app(OutboxCelery, redis_url, queue_name)

    def queue(kind: str) -> Queue:
        exchange = Exchange(f"{queue_name}-exchange", type=kind)
        return Queue(f"{queue_name}-{kind}", exchange, routing_key="k")

    topic, fanout = (frozen(app, 9, queue=queue(kind)) for kind in ("topic", "fanout"))
    leave(using, frozen(app, 0), topic, fanout, frozen(app, 1))

    rounds(using, 4)

    first, *asking, last = outcomes(using)
    assert (first, last) == (SENT, SENT)
    assert sorted(status for status, _ in asking) == ["DEAD", "SENT"]
    assert copies(redis_url, queue_name) == {0: 1, 1: 1}


@ON_POSTGRESQL
def test_a_queue_of_the_app_that_rabbitmq_has_otherwise_is_no_error_of_other_messages(
    using: str, rabbitmq_url: str, queue_name: str
) -> None:
    """Celery declares what a message needs, and nothing else."""
    stale, named = f"{queue_name}-stale", Exchange(f"{queue_name}-exchange", type="topic")
    app = make_app(OutboxCelery, rabbitmq_url, queue_name)
    app.conf.task_queues = [Queue(stale, max_length=5), Queue(queue_name, named, routing_key="k")]
    with Connection(rabbitmq_url) as connection:
        channel = connection.default_channel
        Queue(stale)(channel).declare()
        try:
            leave_to_the_relay(app, using, 2, queue=queue_name)
            rounds(using, 1)
            assert outcomes(using) == [SENT, SENT]
            assert copies(rabbitmq_url, queue_name) == {0: 1, 1: 1}
        finally:
            channel.queue_delete(stale)
            channel.exchange_delete(named.name)


@ON_POSTGRESQL
def test_a_line_that_breaks_a_few_times_is_no_messages_fault(
    using: str, broker_url: str, queue_name: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JAIMINHO_CONFIG = {"MAX_ATTEMPTS": 1}
    with in_front_of(broker_url) as proxy:
        app = make_app(OutboxCelery, proxy.url, queue_name)
        leave_to_the_relay(app, using, 5)
        tries = before_publishing(monkeypatch, lambda nth: proxy.cut() if nth < 3 else None)
        rounds(using, 3)

    assert len(tries) > 3
    assert outcomes(using) == [SENT] * 5
    assert set(copies(broker_url, queue_name)) == {0, 1, 2, 3, 4}


@ON_POSTGRESQL
@pytest.mark.parametrize("dies_at", [3, 7])
def test_a_broker_that_dies_in_mid_batch_counts_against_no_message(
    using: str,
    broker_url: str,
    queue_name: str,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    dies_at: int,
) -> None:
    """With the batch, and when messages already go one by one."""
    settings.JAIMINHO_CONFIG = {"MAX_ATTEMPTS": 1}
    proxy = BlackHole(broker_url, 5672 if broker_url.startswith("amqp") else 6379)
    app = make_app(OutboxCelery, proxy.url, queue_name)
    leave_to_the_relay(app, using, 5)

    def die(nth: int) -> None:
        if nth == 0:
            proxy.cut()
        if nth == dies_at:
            proxy.close()

    before_publishing(monkeypatch, die)
    rounds(using, 3)

    assert {count for _, count in outcomes(using)} == {0}
    assert {status for status, _ in outcomes(using)} <= {"SENT", "WAITING"}
    assert "WAITING" in {status for status, _ in outcomes(using)} or dies_at > 5
    copies(broker_url, queue_name)


def before_publishing(monkeypatch: pytest.MonkeyPatch, act: Any) -> list[int]:
    """Call ``act`` with the number of each try to publish one message; return these numbers."""
    publish, tries = transports._publish, list[int]()

    def acting(*args: Any) -> None:
        tries.append(len(tries))
        act(tries[-1])
        publish(*args)

    monkeypatch.setattr(transports, "_publish", acting)
    return tries
