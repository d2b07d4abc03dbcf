"""Behaviour 7: Celery messages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import chain, group
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult
from django.db import connections, transaction
from django.utils import timezone

from jaiminho_celery import hooks
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox
from tests.integration.outbox_contract.common import Crash, done, let_leases_run_out, relay
from tests.integration.test_celery_messages import drain_queue, make_app
from tests.integration.wire import Broker, acting, assert_equal_on_the_wire, pair


def let_be_due(using: str) -> None:
    past = timezone.now() - timedelta(minutes=1)
    Event.objects.using(using).filter(sent_at=None).update(run_after=past)


@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery's Redis backend
def test_outbox_celery(broker_url: str, redis_url: str, queue_name: str) -> None:
    app = working(broker_url, redis_url, queue_name)
    add = app.tasks["contract.add"]
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        add.delay(0, 0)
        raise ZeroDivisionError
    with transaction.atomic():
        results = [
            add.delay(1, 2),
            add.apply_async((3,), {"y": 4}),
            app.send_task("contract.add", (5, 6)),
            chain(add.s(7, 8), add.s(9))(),
        ]
        of_group = group(add.s(10, 11), add.s(12, 13))()
        assert all(isinstance(result, AsyncResult) for result in results)
        assert Event.objects.filter(sent_at=None).count() == 6
    assert hooks.flush()
    assert not Event.objects.exists()
    with start_worker(app, loglevel="WARNING", perform_ping_check=False, shutdown_timeout=20):
        assert [result.get(timeout=20) for result in results] == [3, 7, 11, 24]
        assert of_group.get(timeout=20) == [21, 25]
    app.backend.result_consumer.stop()
    drain_queue(broker_url, queue_name)


def working(broker_url: str, backend: str, queue_name: str) -> Any:
    """Return an app whose task a worker in this process can run."""
    app = OutboxCelery("contract", broker=broker_url, backend=backend)
    app.conf.update(
        task_default_queue=queue_name,
        worker_hijack_root_logger=False,
        broker_heartbeat=1,  # makes the worker's loop look soon whether it has to stop
    )

    @app.task(name="contract.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    app.set_default()
    app.finalize()
    return app


@pytest.fixture
def at(broker_url: str, queue_name: str) -> Iterator[Broker]:
    place = Broker(broker_url, queue_name)
    yield place
    place.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"countdown": 30, "expires": 60},
        {"serializer": "pickle", "compression": "gzip"},
        {"priority": 3, "headers": {"tenant": "blue"}, "queue": "named", "shadow": "shown"},
    ],
    ids=str,
)
def test_behaviour_7_outbox_celery_sends_exactly_the_message_of_celery(
    at: Broker, options: dict[str, Any]
) -> None:
    if options.get("queue"):
        options = {**options, "queue": f"{at.name}-named"}
    taken = []
    for app in pair(at):
        with acting(app):
            app.tasks["wire.add"].apply_async((1, "\x00\U0001f600"), {"y": [2]}, **options)
            hooks.flush()
        taken.append(at.take())
    native, ours = taken
    assert native, "there is something to compare"
    assert_equal_on_the_wire(native, ours)


@pytest.mark.django_db(transaction=True)
def test_behaviour_7_countdown_and_expires_count_from_the_call(
    broker_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, broker_url, queue_name)
    called_at = timezone.now()
    app.tasks["wire.add"].apply_async((1, 2), countdown=3600, expires=7200)  # kept by the outbox
    returned_at = timezone.now()
    let_be_due("default")
    relay("default")
    ((_, headers, _),) = drain_queue(broker_url, queue_name)
    for header, hours in (("eta", 1), ("expires", 2)):
        moment = datetime.fromisoformat(headers[header]) - timedelta(hours=hours)
        assert called_at <= moment <= returned_at


@pytest.mark.usefixtures("quiet")
def test_behaviour_7_a_crash_repeats_at_most_the_decorated_function_that_ran(using: str) -> None:
    crashes = ["second"]

    @save_to_outbox(using=using, name="contract.crashing")
    def publish(payload: str) -> None:
        done.append(payload)
        if payload in crashes:
            crashes.remove(payload)
            raise Crash

    def leave_to_the_relay() -> None:
        raise Crash

    with pytest.raises(Crash), transaction.atomic(using=using):
        transaction.on_commit(leave_to_the_relay, using=using)
        for payload in ("first", "second", "third"):
            publish(payload)
    let_leases_run_out(using)
    with pytest.raises(Crash):
        relay(using)
    let_leases_run_out(using)
    relay(using)
    let_be_due(using)  # who may have killed a process waits a little
    relay(using)
    assert Counter(done) == {"first": 1, "second": 2, "third": 1}


def test_behaviour_7_a_crash_repeats_at_most_one_unsettled_batch(
    using: str, broker_url: str, queue_name: str
) -> None:
    app = make_app(OutboxCelery, broker_url, queue_name)
    app.outbox_using = using
    for number in range(30):
        app.tasks["wire.add"].apply_async((number, 0), countdown=3600)  # kept by the outbox
    let_be_due(using)
    settled: list[str] = []

    def die_at_the_second_batch(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE") and "SENT" in str(rest[0]):
            settled.append(sql)
            if len(settled) == 2:
                raise Crash
        return execute(sql, *rest)

    with (
        connections[using].execute_wrapper(die_at_the_second_batch),
        pytest.raises(Crash),
    ):
        relay(using)
    recorded = set(Event.objects.using(using).exclude(sent_at=None).values_list("pk", flat=True))
    unsettled = Event.objects.using(using).exclude(lease_until=None).count()
    assert recorded
    assert unsettled
    for _ in range(3):
        let_leases_run_out(using)
        let_be_due(using)
        relay(using)
    sent = drain_queue(broker_url, queue_name)
    counts = Counter(json.loads(body)[0][0] for body, _, _ in sent)
    assert set(counts) == set(range(30))
    assert max(counts.values()) == 2
    assert sum(counts.values()) == 30 + unsettled
