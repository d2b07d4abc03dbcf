"""Celery messages go by the batch: claimed, published and settled together, on real brokers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jaiminho_celery import hooks, messages, sweep, wire
from jaiminho_celery import signals as event_signals
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.capture import Capture
from jaiminho_celery.models import Event
from parviraptor_celery import broker
from parviraptor_celery.drains import Budget
from tests.integration.black_hole import in_front_of
from tests.integration.test_celery_messages import drain_queue, make_app
from tests.integration.test_outbox import Crash, expire


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    broker.close_breaker()
    yield
    hooks.flush()
    broker.close_breaker()


@pytest.fixture
def app(broker_url: str, queue_name: str) -> Any:
    return make_app(OutboxCelery, broker_url, queue_name)


def frozen(app: Any, number: int, **options: Any) -> list[dict[str, Any]]:
    """Return the message of one task as OutboxCelery freezes it."""
    capture = Capture(app)
    super(OutboxCelery, app).send_task("wire.add", (number, 0), producer=capture, **options)
    return capture.messages


def leave_to_the_relay(app: Any, using: str, count: int, **options: Any) -> None:
    """Commit messages whose hooks die, and let their leases run out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        with transaction.atomic(using=using):
            for number in range(count):
                messages.enqueue(frozen(app, number, **options), using)
    expire(using)


def relay(using: str) -> int:
    return sweep.relay_here(using, Budget.endless())


def numbers(taken: list[Any]) -> list[int]:
    """Return the first argument of each message of a queue, the oldest first."""
    return sorted(json.loads(body)[0][0] for body, _, _ in taken)


def statuses(using: str) -> list[str]:
    return list(Event.rows(using).order_by("id").values_list("status", flat=True))


def test_the_relay_puts_waiting_messages_on_the_wire_once_each(
    using: str, app: Any, broker_url: str, queue_name: str
) -> None:
    leave_to_the_relay(app, using, 30)

    assert relay(using) == 30

    assert numbers(drain_queue(broker_url, queue_name)) == list(range(30))
    assert statuses(using) == [Event.Status.SENT] * 30


def test_a_hundred_messages_cost_a_handful_of_statements(
    using: str, redis_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, redis_url, queue_name)
    leave_to_the_relay(app, using, 600)
    sweep.rescue(using)

    with CaptureQueriesContext(connections[using]) as queries:
        relay(using)

    assert len(numbers(drain_queue(redis_url, queue_name))) == 600
    writes = [q for q in queries if q["sql"].startswith(("UPDATE", "DELETE", "INSERT"))]
    assert len(writes) == 2 * 3, "a look of 10 messages, then two of 500 at most: lease and settle"
    assert len(queries) <= 50


def test_what_was_published_is_deleted_at_once_where_that_is_asked_for(
    using: str, redis_url: str, queue_name: str, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"DELETE_AFTER_SEND": True}
    app = make_app(OutboxCelery, redis_url, queue_name)
    leave_to_the_relay(app, using, 3)

    relay(using)

    assert numbers(drain_queue(redis_url, queue_name)) == [0, 1, 2]
    assert statuses(using) == []


def test_a_message_that_no_queue_takes_fails_alone(
    using: str, rabbitmq_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, rabbitmq_url, queue_name)
    leave_to_the_relay(app, using, 1, exchange="amq.direct", routing_key="nobody")
    leave_to_the_relay(app, using, 2)

    relay(using)

    refused, *others = Event.rows(using).order_by("id")
    assert (refused.status, refused.error_count) == (Event.Status.WAITING, 1)
    assert "no queue takes what goes to exchange 'amq.direct'" in refused.error_message
    assert [event.status for event in others] == [Event.Status.SENT] * 2
    assert numbers(drain_queue(rabbitmq_url, queue_name)) == [0, 1]


def test_a_message_to_a_missing_exchange_fails_alone(
    using: str, rabbitmq_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, rabbitmq_url, queue_name)
    leave_to_the_relay(app, using, 3)
    leave_to_the_relay(app, using, 1, exchange="no.such.exchange", routing_key="x")
    leave_to_the_relay(app, using, 3)

    relay(using)
    relay(using)

    counts = [event.error_count for event in Event.rows(using).order_by("id")]
    missing = counts.pop(3)
    # With a pause of almost nothing it was due again for the second.
    assert (counts, missing in (1, 2)) == ([0] * 6, True)
    assert statuses(using).count(Event.Status.SENT) == 6
    # Those whose confirms went with the channel may be there twice; none is missing.
    assert set(numbers(drain_queue(rabbitmq_url, queue_name))) == {0, 1, 2}


def test_a_message_that_the_transport_refuses_fails_alone(
    using: str, rabbitmq_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, rabbitmq_url, queue_name)
    leave_to_the_relay(app, using, 2)
    broken = frozen(app, 7)
    broken[0]["priority"] = "urgent"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        messages.enqueue(broken, using)
    expire(using)

    relay(using)

    assert numbers(drain_queue(rabbitmq_url, queue_name)) == [0, 1]
    *fine, bad = Event.rows(using).order_by("id")
    assert [event.status for event in fine] == [Event.Status.SENT] * 2
    assert (bad.status, bad.error_count) == (Event.Status.WAITING, 1)


def test_a_message_that_is_wrong_by_itself_fails_alone(
    using: str, app: Any, broker_url: str, queue_name: str
) -> None:
    leave_to_the_relay(app, using, 2)
    broken = frozen(app, 7)
    broken[0]["expiration"] = "soon"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        messages.enqueue(broken + frozen(app, 8), using)
        messages.enqueue(frozen(app, 2), using)
    expire(using)

    relay(using)

    assert [event.error_count for event in Event.rows(using).order_by("id")] == [0, 0, 1, 0]
    assert statuses(using).count(Event.Status.SENT) == 3
    assert numbers(drain_queue(broker_url, queue_name)) == [0, 1, 2, 8]


def test_a_tampered_message_is_a_dead_letter_and_its_neighbours_are_sent(
    using: str, redis_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, redis_url, queue_name)
    leave_to_the_relay(app, using, 3)
    second = Event.rows(using).order_by("id")[1]
    Event.rows(using).filter(pk=second.pk).update(key="changed")

    relay(using)

    assert statuses(using) == [Event.Status.SENT, Event.Status.DEAD, Event.Status.SENT]
    assert numbers(drain_queue(redis_url, queue_name)) == [0, 2]


def test_an_absent_broker_counts_against_no_message_and_is_tried_once(
    using: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, "redis://127.0.0.1:1/0", queue_name)
    leave_to_the_relay(app, using, 5)
    failed: list[int] = []

    def note(event_id: int, **_: Any) -> None:
        failed.append(event_id)

    event_signals.event_failed_to_publish_by_events_relay.connect(note)
    try:
        relay(using)
    finally:
        event_signals.event_failed_to_publish_by_events_relay.disconnect(note)

    events = list(Event.rows(using).order_by("id"))
    assert [(event.status, event.error_count) for event in events] == [("WAITING", 0)] * 5
    assert all("refused" in event.error_message for event in events)
    assert all(event.run_after > timezone.now() - timedelta(seconds=1) for event in events)
    assert sorted(failed) == [event.pk for event in events]


@pytest.mark.django_db(transaction=True)
def test_the_error_of_an_absent_broker_is_reported_once_for_a_batch(
    queue_name: str, settings: Any
) -> None:
    reported: list[BaseException] = []
    settings.JAIMINHO_CONFIG = {"DEFAULT_CAPTURE_EXCEPTION": reported.append}
    app = make_app(OutboxCelery, "redis://127.0.0.1:1/0", queue_name)
    leave_to_the_relay(app, "default", 5)

    relay("default")

    assert statuses("default") == [Event.Status.WAITING] * 5
    assert len(reported) == 1


def test_a_crash_between_publishing_and_settling_repeats_the_one_batch(
    using: str, app: Any, broker_url: str, queue_name: str
) -> None:
    leave_to_the_relay(app, using, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaiminho_celery.batches.BatchRun.settle", _die)
        with pytest.raises(Crash):
            relay(using)
    assert statuses(using) == [Event.Status.PUBLISHING] * 4
    assert relay(using) == 0, "the leases of the dead relay hold"

    expire(using)
    Event.rows(using).update(run_after=timezone.now() - timedelta(seconds=1))
    relay(using)
    Event.rows(using).update(run_after=timezone.now() - timedelta(seconds=1))
    relay(using)

    assert statuses(using) == [Event.Status.SENT] * 4
    assert numbers(drain_queue(broker_url, queue_name)) == sorted([0, 1, 2, 3] * 2)


def test_a_batch_that_lost_one_lease_records_all_others(
    using: str, redis_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, redis_url, queue_name)
    leave_to_the_relay(app, using, 3)
    stolen = Event.rows(using).order_by("id")[1]

    def send_and_lose(app: Any, batch: list[Any]) -> list[None]:
        Event.rows(using).filter(pk=stolen.pk).update(attempt=99)
        return [None] * len(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "send", send_and_lose)
        relay(using)

    assert statuses(using) == [Event.Status.SENT, Event.Status.PUBLISHING, Event.Status.SENT]
    assert Event.rows(using).get(pk=stolen.pk).attempt == 99


def test_a_connection_that_died_unnoticed_is_replaced_and_nothing_waits(
    using: str, broker_url: str, queue_name: str
) -> None:
    with in_front_of(broker_url) as proxy:
        app = make_app(OutboxCelery, proxy.url, queue_name)
        messages.enqueue(frozen(app, 1), using)
        assert hooks.flush()
        proxy.cut()
        messages.enqueue(frozen(app, 2), using)
        assert hooks.flush()

    assert statuses(using) == []
    assert proxy.connections >= 2
    assert numbers(drain_queue(broker_url, queue_name)) == [1, 2]


def test_functions_and_messages_take_turns_by_their_due_time(
    using: str, redis_url: str, queue_name: str
) -> None:
    from tests.testapp import outbox

    outbox.forget()
    app = make_app(OutboxCelery, redis_url, queue_name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        patch.setattr("django.db.router.db_for_write", lambda *_, **__: using)
        for number in range(3):
            outbox.bare(number)
            messages.enqueue(frozen(app, number), using)
    expire(using)

    assert relay(using) == 6

    assert [args for _, args, _ in outbox.calls] == [(0,), (1,), (2,)]
    assert numbers(drain_queue(redis_url, queue_name)) == [0, 1, 2]
    assert statuses(using) == [Event.Status.SENT] * 6


def test_the_next_due_event_is_found_through_its_index(using: str) -> None:
    """However many rows are parked, or were sent before."""
    now = timezone.now()
    rows = [
        Event(name="n", version=1, strategy="x", body="", run_after=now + timedelta(days=1))
        for _ in range(3000)
    ]
    rows[0].run_after = now - timedelta(days=1)
    Event.rows(using).bulk_create(rows)
    with connections[using].cursor() as cursor:
        table = Event._meta.db_table
        cursor.execute("ANALYZE TABLE " + table if using == "mariadb" else "ANALYZE " + table)

    plan = Event.rows(using).due_at(now)[:10].explain()

    index = next(index for index in Event._meta.indexes if getattr(index, "without_lane", False))
    assert index.name in plan, plan
    assert "Seq Scan" not in plan
    assert "filesort" not in plan
    assert "TEMP B-TREE" not in plan


def _die(*_: Any, **__: Any) -> None:
    raise Crash
