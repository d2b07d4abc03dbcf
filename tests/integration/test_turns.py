"""The relay's turns: nobody waits until the others are done, and a round has an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models.signals import pre_delete
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jaiminho_celery import dispatch, registry, sweep
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery import broker
from parviraptor_celery.drains import Budget
from tests.integration.test_celery_messages import drain_queue, make_app
from tests.integration.test_message_batches import frozen, leave_to_the_relay
from tests.integration.test_outbox import expire
from tests.integration.waiting import leave, outcomes

ON_POSTGRESQL = pytest.mark.parametrize("using", ["postgresql"], indirect=True)
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def _quiet_broker() -> Iterator[None]:
    broker.close_breaker()
    with broker.silence():
        yield
    broker.close_breaker()


@pytest.fixture
def ran() -> list[Any]:
    return []


@pytest.fixture
def failing(using: str, ran: list[Any]) -> Iterator[Callable[[int], Any]]:
    """A function without order that notes its call and fails."""

    def fail(number: int) -> None:
        ran.append(number)
        time.sleep(0.005)
        raise OSError("timeout")

    yield save_to_outbox(name="turns.failing", using=using)(fail)
    registry._functions.pop("turns.failing")


@pytest.fixture
def ordered(using: str, ran: list[Any]) -> Iterator[Callable[[str], Any]]:
    """A keep-order function that notes its call."""
    stream = save_to_outbox_stream("turns", "keep-order", name="turns.ordered", using=using)
    yield stream(lambda text: ran.append(text))
    registry._functions.pop("turns.ordered")


def test_failing_events_without_order_keep_no_lane_waiting(
    using: str,
    failing: Callable[[int], Any],
    ordered: Callable[[str], Any],
    ran: list[Any],
    settings: Any,
) -> None:
    """They fall due again faster than they can be tried."""
    settings.JAIMINHO_CONFIG = {"BACKOFF_BASE_SECONDS": 0.001, "BACKOFF_CAP_SECONDS": 0.01}
    with pytest.MonkeyPatch.context() as patch, transaction.atomic(using=using):
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        ordered("ordered")
        for number in range(50):
            failing(number)
    expire(using)
    end = time.monotonic() + PATIENCE

    sweep.relay_here(using, Budget.endless(lambda: time.monotonic() > end))

    assert time.monotonic() < end, "the round had an end"
    assert "ordered" in ran
    assert len(ran) == 51, "each was tried once"


def test_a_budget_of_one_event_is_not_spent_twice(
    using: str, failing: Callable[[int], Any], ordered: Callable[[str], Any], ran: list[Any]
) -> None:
    ordered("ordered")
    failing(1)
    ran.clear()  # the hook has tried it
    Event.rows(using).filter(lane=None).update(run_after=timezone.now() - timedelta(seconds=1))

    assert sweep.relay_here(using, Budget(rows=1, seconds=PATIENCE)) == 1

    assert ran == [1]


def test_a_lane_gets_its_turn_before_a_long_pool_is_empty(
    using: str,
    failing: Callable[[int], Any],
    ordered: Callable[[str], Any],
    ran: list[Any],
    settings: Any,
) -> None:
    settings.JAIMINHO_CONFIG = {"RELAY_SECONDS": 0.1}
    with pytest.MonkeyPatch.context() as patch, transaction.atomic(using=using):
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        ordered("ordered")
        for number in range(100):
            failing(number)
    expire(using)

    sweep.relay_here(using, Budget.endless())

    assert len(ran) == 101
    assert ran.index("ordered") < 100


def test_a_lane_that_never_empties_ends_the_round(using: str, settings: Any) -> None:
    """Or other databases, and what has no order, would wait for it."""
    settings.JAIMINHO_CONFIG = {"RELAY_SECONDS": 0.05}
    end = time.monotonic() + PATIENCE
    stream = save_to_outbox_stream("turns", "keep-order", name="turns.refilling", using=using)

    def refill() -> None:
        with transaction.atomic(using=using):
            more()

    more = stream(refill)
    refill()
    try:
        tried = sweep.relay_here(using, Budget.endless(lambda: time.monotonic() > end))
    finally:
        registry._functions.pop("turns.refilling")

    assert tried > 0
    assert time.monotonic() < end


def test_events_of_an_unknown_name_end_the_round(using: str, settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {
        "RELAY_INTERVAL_SECONDS": 0.01,
        "VERIFY_EVENTS_SIGNATURE": False,
    }
    past = timezone.now() - timedelta(hours=1)
    unknown = {"name": "who", "version": 1, "strategy": "x", "body": '{"args":[],"kwargs":{}}'}
    Event.rows(using).bulk_create([Event(**unknown, run_after=past) for _ in range(50)])
    end = time.monotonic() + PATIENCE

    tried = sweep.relay_here(using, Budget.endless(lambda: time.monotonic() > end))

    assert tried == 50
    assert set(outcomes(using)) == {("WAITING", 0)}


@ON_POSTGRESQL
def test_relay_rows_bounds_what_one_task_sends(
    using: str, redis_url: str, queue_name: str, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"RELAY_ROWS": 20}
    app = make_app(OutboxCelery, redis_url, queue_name)
    leave_to_the_relay(app, using, 60)
    sweep.rescue(using)

    report = dispatch.relay_pool(using, dispatch.nudge_budget())

    assert (report.rows, report.is_exhausted) == (20, True)
    assert len(drain_queue(redis_url, queue_name)) == 20


@ON_POSTGRESQL
def test_large_messages_make_small_batches(
    using: str, redis_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a batch takes in memory is bounded by bytes, not by rows alone."""
    monkeypatch.setattr(dispatch, "BATCH_BYTES", 20_000)
    app = make_app(OutboxCelery, redis_url, queue_name)
    leave(using, *(frozen(app, "x" * 4000) for _ in range(40)))
    sweep.rescue(using)
    looks: list[int] = []
    choose = dispatch.EventPoolFeed.choose

    def noting(feed: dispatch.EventPoolFeed) -> list[Event]:
        chosen = choose(feed)
        looks.append(len(chosen))
        return chosen

    monkeypatch.setattr(dispatch.EventPoolFeed, "choose", noting)
    report = dispatch.relay_pool(using, Budget.endless())

    assert report.rows == 40
    assert max(looks[1:]) <= 4
    assert len(drain_queue(redis_url, queue_name)) == 40


def test_a_delete_is_fenced_though_somebody_listens_for_deletions(using: str) -> None:
    """Django would first read the rows, and then go by their ids alone."""
    lease = {"status": "PUBLISHING", "attempt": 1, "lease_until": timezone.now()}
    event = Event(name="n", version=1, strategy="x", body="{}", **lease)
    event.insert(using)

    def audit(**_: Any) -> None:
        pass

    pre_delete.connect(audit)
    try:
        with CaptureQueriesContext(connections[using]) as queries:
            assert event.delete_sent()
    finally:
        pre_delete.disconnect(audit)

    (delete,) = [query["sql"] for query in queries if query["sql"].startswith("DELETE")]
    assert "PUBLISHING" in delete
    assert "attempt" in delete
