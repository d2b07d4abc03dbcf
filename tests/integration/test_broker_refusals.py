"""A broker that answers and takes nothing is an absent one: nothing is counted, nothing dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Queue

from jaiminho_celery.app import OutboxCelery
from parviraptor_celery import broker
from tests.integration.test_celery_messages import make_app
from tests.integration.test_message_batches import frozen, leave_to_the_relay
from tests.integration.waiting import copies, leave, outcomes, private_valkey, rounds

ON_POSTGRESQL = pytest.mark.parametrize("using", ["postgresql"], indirect=True)
WAITING, SENT = ("WAITING", 0), ("SENT", 0)

REFUSALS = {
    "is full": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "lacks replicas": (
        "CONFIG SET min-replicas-to-write 3",
        "CONFIG SET min-replicas-to-write 0",
    ),
    "is a replica": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
}


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    broker.close_breaker()
    yield
    broker.close_breaker()


@pytest.fixture(autouse=True)
def _one_attempt(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"MAX_ATTEMPTS": 1}


@pytest.fixture(scope="module")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("valkey")
    with private_valkey(folder) as url:
        yield url


@ON_POSTGRESQL
@pytest.mark.parametrize("refusal", list(REFUSALS))
@pytest.mark.parametrize("declares", [True, False])
def test_a_redis_that_takes_nothing_counts_against_no_message(
    using: str, valkey_url: str, queue_name: str, refusal: str, *, declares: bool
) -> None:
    app = make_app(OutboxCelery, valkey_url, queue_name)
    options = {} if declares else {"queue": Queue(queue_name, no_declare=True)}
    leave(using, *(frozen(app, number, **options) for number in range(3)))
    begin, end = REFUSALS[refusal]
    with redis.Redis.from_url(valkey_url) as client:
        client.execute_command(*begin.split())
        try:
            rounds(using, 3)
            assert outcomes(using) == [WAITING] * 3
            broker.close_breaker()
            assert not broker.kick("jaiminho_celery.relay_events", using=using)
        finally:
            client.execute_command(*end.split())

    rounds(using, 1)

    assert outcomes(using) == [SENT] * 3
    assert copies(valkey_url, queue_name) == {0: 1, 1: 1, 2: 1}


@ON_POSTGRESQL
def test_a_redis_that_fills_up_in_mid_batch_repeats_a_message_twice_a_round_at_most(
    using: str, valkey_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, valkey_url, queue_name)
    leave_to_the_relay(app, using, 300)
    with redis.Redis.from_url(valkey_url) as client:
        try:
            came_at_first = _fill_up_in_mid_batch(client, using)
        finally:
            client.config_set("maxmemory", 0)
    rounds(using, 1)

    assert came_at_first == {WAITING, SENT}
    assert outcomes(using) == [SENT] * 300
    found = copies(valkey_url, queue_name)
    assert set(found) == set(range(300))
    assert max(found.values()) <= 3


def _fill_up_in_mid_batch(client: redis.Redis, using: str) -> set[tuple[str, int]]:
    """Give it more and more room, until it takes some messages; return what came of all.

    How much it needs before it takes the first depends on how the commands arrive: those that it
    has read and not run yet fill its memory too.
    """
    for room in range(100_000, 2_000_000, 50_000):
        client.config_set("maxmemory", client.info("memory")["used_memory"] + room)
        broker.close_breaker()
        rounds(using, 1)
        if SENT in (outcome := set(outcomes(using))):
            return outcome
    pytest.fail("it took nothing, however much room it had")


@ON_POSTGRESQL
def test_a_password_that_rabbitmq_refuses_counts_against_no_message(
    using: str, rabbitmq_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, rabbitmq_url.replace("guest:guest", "guest:wrong"), queue_name)
    leave_to_the_relay(app, using, 3)

    rounds(using, 3)

    assert outcomes(using) == [WAITING] * 3
    broker.close_breaker()
    assert not broker.kick("jaiminho_celery.relay_events", using=using)
    assert broker.seconds_until_tried() > 0, "it is not asked again for each kick"


@ON_POSTGRESQL
def test_a_full_queue_counts_against_no_message_and_is_no_missing_queue(
    using: str, rabbitmq_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, rabbitmq_url, queue_name)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    app.conf.task_queues = [Queue(queue_name, queue_arguments=full)]
    leave_to_the_relay(app, using, 3)

    rounds(using, 3)
    assert sorted(outcomes(using)) == [SENT, WAITING, WAITING]
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_purge(queue_name)
    rounds(using, 1)

    assert sorted(outcomes(using)) == [SENT, SENT, WAITING]
    assert sum(copies(rabbitmq_url, queue_name).values()) == 1
