"""A broker that takes packets and answers nothing makes no request wait for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from kombu import Connection

from jaiminho_celery import registry
from jaiminho_celery import sweep as relay
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox_stream
from parviraptor_celery import broker, sweep
from parviraptor_celery.drains import Budget
from tests.integration.black_hole import BlackHole, in_front_of
from tests.integration.test_celery_messages import drain_queue, make_app
from tests.testapp.models import FifoJob
from tests.unit.events import let_be_due

pytestmark = pytest.mark.django_db(transaction=True)

FIRST_TIME_SECONDS = 3.0
"""One try takes about BROKER_TIMEOUT_SECONDS, which is 1; the machine may be busy."""

BREAKER_OPEN_SECONDS = 0.5
"""Nothing is tried then: a few milliseconds, and the same allowance."""

published: list[Any] = []


@pytest.fixture
def hole(broker_url: str, queue_name: str) -> Iterator[BlackHole]:
    """The way to the broker that the application knows."""
    broker.close_breaker()
    published.clear()
    known = dict(registry._functions)
    with in_front_of(broker_url) as hole:
        make_app(OutboxCelery, hole.url, queue_name)
        yield hole
    with Connection(broker_url) as connection, connection.channel() as channel:
        channel.queue_delete(queue_name)
    registry._functions.clear()
    registry._functions.update(known)
    broker.close_breaker()


def send_in_order() -> None:
    @save_to_outbox_stream("hole", "keep-order", name="tests.black_hole")
    def publish(payload: Any) -> None:
        published.append(payload)

    publish("an event")


def enqueue_job() -> None:
    FifoJob.enqueue()


def send_message() -> None:
    broker.this_app().tasks["wire.add"].delay(1, 2)


def all_of_them() -> None:
    for _ in range(3):
        send_in_order()
        enqueue_job()
        send_message()


WORK = [send_in_order, enqueue_job, send_message, all_of_them]
each_work = pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)


def seconds_of_a_request(work: Callable[[], None]) -> float:
    """Do ``work`` in a transaction and return how long that took, with everything after it."""
    before = time.monotonic()
    with transaction.atomic():
        work()
    return time.monotonic() - before


@each_work
def test_a_request_goes_on_after_one_try_and_the_next_ones_at_once(
    hole: BlackHole, work: Callable[[], None]
) -> None:
    hole.swallow()
    first = seconds_of_a_request(work)
    tried = hole.connections
    next_ones = [seconds_of_a_request(work) for _ in range(5)]
    assert tried == 1
    assert hole.connections == 1, "nobody knocks while the breaker is open"
    assert first < FIRST_TIME_SECONDS
    assert max(next_ones) < BREAKER_OPEN_SECONDS
    assert (
        waiting()
        == {
            send_in_order: (6, 0),
            enqueue_job: (0, 6),
            send_message: (6, 0),
            all_of_them: (36, 18),
        }[work]
    )


@each_work
def test_a_connection_that_stood_before_holds_no_request_either(
    hole: BlackHole, work: Callable[[], None]
) -> None:
    broker.kick("wire.add")
    send_message()
    hole.swallow()
    first = seconds_of_a_request(work)
    assert first < FIRST_TIME_SECONDS


@pytest.mark.parametrize("is_connected", [False, True], ids=["new", "connected"])
def test_what_was_written_meanwhile_is_delivered_when_the_broker_is_back(
    hole: BlackHole, broker_url: str, queue_name: str, is_connected: bool
) -> None:
    if is_connected:
        send_message()
        drain_queue(broker_url, queue_name)
    hole.swallow()
    seconds_of_a_request(all_of_them)
    hole.heal()

    for _ in range(2):  # a connection that died meanwhile may cost one try
        broker.close_breaker()  # BROKER_BREAKER_SECONDS later
        let_be_due()
        relay.relay_here("default", Budget.endless())
        sweep.sweep_all(force=True)

    assert published == ["an event"] * 3
    assert set(Event.objects.values_list("status", flat=True)) == {"SENT"}
    tasks = [headers["task"] for _, headers, _ in drain_queue(broker_url, queue_name)]
    assert tasks.count("wire.add") == 3
    assert "parviraptor_celery.process_jobs" in tasks, "the sweep kicks the lane of the jobs"


def test_a_kick_goes_over_a_new_connection_if_the_old_one_had_died_unnoticed(
    hole: BlackHole,
) -> None:
    assert broker.kick("wire.add")
    hole.cut()
    assert broker.kick("wire.add")
    assert hole.connections > 1
    assert broker.seconds_until_tried() == 0


def waiting() -> tuple[int, int]:
    """Return how many events and how many jobs wait for a relay or a worker."""
    return (
        Event.objects.filter(status="WAITING").count(),
        FifoJob.objects.filter(status="NEW").count(),
    )
