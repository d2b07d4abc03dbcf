"""A task that is due far ahead stays in the database until shortly before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, group
from django.db import transaction
from django.utils import timezone

from jaiminho_celery import hooks, messages, sweep
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from parviraptor_celery.drains import Budget
from tests.integration.background.common import statuses
from tests.integration.test_celery_messages import drain_queue, make_app
from tests.integration.test_message_batches import frozen

HOUR = timedelta(hours=1)
BEFORE = timedelta(seconds=60)
"""Two rounds of the relay (RELAY_INTERVAL_SECONDS is 30)."""

Taken = Callable[[], list[Any]]


@pytest.fixture(autouse=True)
def _flush() -> Any:
    yield
    hooks.flush()


@pytest.fixture
def app(using: str, redis_url: str, queue_name: str) -> Any:
    app = make_app(OutboxCelery, redis_url, queue_name)
    app.outbox_using = using
    return app


@pytest.fixture
def taken(redis_url: str, queue_name: str) -> Taken:
    """Take the messages that are at the broker by now: body, headers, properties."""

    def take() -> list[Any]:
        assert hooks.flush()
        return drain_queue(redis_url, queue_name)

    return take


def relay(using: str) -> int:
    return sweep.relay_here(using, Budget.endless())


def let_it_be(event: Event, moment: datetime, using: str) -> None:
    """Let time pass until ``moment``: the row's own time moves, not the database's clock."""
    ahead = moment - timezone.now()
    Event.rows(using).filter(pk=event.pk).update(run_after=event.run_after - ahead)


def seconds_apart(one: datetime, other: datetime) -> float:
    return abs((one - other).total_seconds())


@pytest.mark.parametrize("how", ["eta", "countdown", "naive eta", "eta as text"])
def test_a_task_that_is_due_far_ahead_waits_in_its_row_until_two_rounds_before(
    using: str, app: Any, taken: Taken, how: str
) -> None:
    due = timezone.now() + HOUR
    app.tasks["wire.add"].apply_async(
        (1, 2),
        **{
            "eta": {"eta": due},
            "countdown": {"countdown": HOUR.total_seconds()},
            "naive eta": {"eta": due.astimezone(UTC).replace(tzinfo=None)},
            "eta as text": {"eta": due.isoformat()},
        }[how],
    )
    assert taken() == []
    event = Event.rows(using).get()
    assert event.status == Event.Status.WAITING
    assert seconds_apart(event.run_after, due - BEFORE) < 10
    assert relay(using) == 0


def test_a_parked_task_is_published_as_it_was_sent(
    using: str, redis_url: str, queue_name: str, app: Any, taken: Taken, settings: Any
) -> None:
    due = timezone.now() + HOUR
    settings.JAIMINHO_CONFIG = {"PARK_BEYOND_SECONDS": None}
    app.tasks["wire.add"].apply_async((1, 2), eta=due, task_id="the-same")
    ((body, headers, _),) = taken()
    settings.JAIMINHO_CONFIG = {}

    app.tasks["wire.add"].apply_async((1, 2), eta=due, task_id="the-same")
    event = Event.rows(using).get()
    let_it_be(event, due - BEFORE - timedelta(seconds=30), using)
    assert relay(using) == 0
    assert taken() == []
    let_it_be(event, due - BEFORE + timedelta(seconds=1), using)
    assert relay(using) == 1

    ((parked_body, parked_headers, _),) = taken()
    assert parked_headers["eta"] == due.isoformat()
    assert (parked_body, parked_headers) == (body, headers)


def test_a_task_that_is_due_soon_goes_to_the_broker_at_once(
    using: str, app: Any, taken: Taken
) -> None:
    app.tasks["wire.add"].apply_async((1, 2), countdown=590)
    ((_, headers, _),) = taken()
    assert headers["eta"]
    assert statuses(using) == []


def test_parking_can_be_turned_off(using: str, app: Any, taken: Taken, settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"PARK_BEYOND_SECONDS": None}
    app.tasks["wire.add"].apply_async((1, 2), countdown=86_400)
    assert len(taken()) == 1
    assert statuses(using) == []


def test_a_short_horizon_is_also_the_head_start(
    using: str, app: Any, taken: Taken, settings: Any
) -> None:
    """Or a task would be late by what the relay's rounds are longer than the horizon."""
    settings.JAIMINHO_CONFIG = {"PARK_BEYOND_SECONDS": 5}
    due = timezone.now() + HOUR
    app.tasks["wire.add"].apply_async((1, 2), eta=due)
    assert seconds_apart(Event.rows(using).get().run_after, due - timedelta(seconds=5)) < 1
    assert taken() == []


@pytest.mark.parametrize("form", [lambda time: time, datetime.isoformat], ids=["time", "text"])
def test_a_time_without_a_zone_is_parked_as_the_worker_reads_it(
    using: str, app: Any, taken: Taken, form: Callable[[datetime], Any]
) -> None:
    due = (timezone.now() + 24 * HOUR).astimezone(UTC)
    app.tasks["wire.add"].apply_async((1, 2), eta=form(due.replace(tzinfo=None)))
    (event,) = Event.rows(using)
    assert taken() == []
    assert seconds_apart(event.run_after, due) < 120


def test_a_time_that_nobody_can_read_is_left_to_the_worker(
    using: str, app: Any, taken: Taken
) -> None:
    app.tasks["wire.add"].apply_async((1, 2), eta="soon")
    ((_, headers, _),) = taken()
    assert headers["eta"] == "soon"


def test_a_delay_that_the_broker_keeps_itself_is_not_parked(
    using: str, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its routing key says how long from the publish on: later it would be too long."""
    monkeypatch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
    delayed = {"exchange": "celery_delayed_27", "routing_key": "1.0.1.wire"}
    app.send_task("wire.add", (1, 2), countdown=86_400, **delayed)
    event = Event.rows(using).get()
    assert event.status == Event.Status.PUBLISHING
    assert event.run_after < timezone.now() + timedelta(minutes=1)


def test_each_task_of_a_group_waits_for_itself(using: str, app: Any, taken: Taken) -> None:
    add = app.tasks["wire.add"]
    group(add.s(1, 2).set(countdown=86_400), add.s(3, 4), add.s(5, 6).set(countdown=3600))()
    assert [headers["eta"] for _, headers, _ in taken()] == [None]
    parked = [event.run_after - timezone.now() for event in Event.rows(using).order_by("id")]
    assert [round(pause.total_seconds(), -2) for pause in parked] == [86_300, 3_500]


def test_a_task_that_is_due_is_not_held_back_by_one_of_the_same_event(
    using: str, app: Any, taken: Taken
) -> None:
    far, near = frozen(app, 1, countdown=86_400), frozen(app, 2)
    messages.enqueue(far + near, using)
    assert len(taken()) == 2
    assert statuses(using) == []


def test_tasks_of_one_event_wait_for_the_first_of_them(using: str, app: Any, taken: Taken) -> None:
    messages.enqueue(frozen(app, 1, countdown=86_400) + frozen(app, 2, countdown=3600), using)
    assert taken() == []
    (event,) = Event.rows(using)
    assert seconds_apart(event.run_after, timezone.now() + HOUR - BEFORE) < 10


def test_what_tells_monitors_of_a_task_waits_with_it(using: str, app: Any, taken: Taken) -> None:
    app.conf.task_send_sent_event = True
    app.tasks["wire.add"].apply_async((1, 2), countdown=3600)
    assert taken() == []
    assert statuses(using) == [Event.Status.WAITING]


def test_a_chain_is_parked_by_its_first_task(using: str, app: Any, taken: Taken) -> None:
    add = app.tasks["wire.add"]
    chain(add.s(1, 2), add.s(3).set(countdown=86_400))()
    assert len(taken()) == 1
    chain(add.s(1, 2).set(countdown=86_400), add.s(3))()
    assert taken() == []
    assert statuses(using) == [Event.Status.WAITING]


def test_a_parked_task_still_expires(using: str, app: Any, taken: Taken) -> None:
    due = timezone.now() + HOUR
    app.tasks["wire.add"].apply_async((1, 2), eta=due, expires=due + HOUR)
    event = Event.rows(using).get()
    let_it_be(event, due, using)
    relay(using)
    ((_, headers, properties),) = taken()
    assert headers["expires"] == (due + HOUR).isoformat()
    assert 7100 < float(properties["expiration"]) / 1000 <= 7200, "from the publish on"


def test_a_rolled_back_transaction_parks_nothing(using: str, app: Any, taken: Taken) -> None:
    with pytest.raises(ValueError, match="undo"), transaction.atomic(using=using):
        app.tasks["wire.add"].apply_async((1, 2), countdown=3600)
        raise ValueError("undo")
    assert statuses(using) == []
    assert relay(using) == 0


def test_what_is_parked_stands_in_the_way_of_nothing(using: str, app: Any, taken: Taken) -> None:
    for _ in range(5):
        app.tasks["wire.add"].apply_async((1, 2), countdown=3600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        app.tasks["wire.add"].delay(3, 4)
    late = Event.rows(using).get(status=Event.Status.PUBLISHING)
    assert late.put_back()

    assert relay(using) == 1

    assert len(taken()) == 1
    assert statuses(using) == [Event.Status.WAITING] * 5 + [Event.Status.SENT]


def test_a_parked_event_is_no_event_of_the_hooks(
    using: str, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("published by its own process")

    monkeypatch.setattr(hooks, "on_commit", refuse)
    app.tasks["wire.add"].apply_async((1, 2), countdown=3600)
    event = Event.rows(using).get()
    assert (event.attempt, event.lease_until, event.name) == (0, None, messages.NAME)
