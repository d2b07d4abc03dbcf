"""Events that come late, and databases that go away under a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from jaiminho_celery import batches, hooks, signals, sweep, wire
from jaiminho_celery.models import Event
from parviraptor_celery.drains import Budget
from tests.integration.background.common import ON_SERVERS, PATIENCE, Send, noting, statuses
from tests.integration.test_outbox import expire
from tests.integration.test_reconnect import lose_connection
from tests.supervision import processes


@pytest.mark.parametrize("is_lost", [False, True], ids=["still ours", "lost"])
def test_an_event_that_comes_late_is_published_only_if_it_is_won_again(
    using: str, send: Send, arrived: Any, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() - 40)  # of a lease of 60 seconds
    monkeypatch.setattr("jaiminho_celery.strategies.time", clock)
    with transaction.atomic(using=using):
        send(1)
        if is_lost:
            Event.rows(using).update(attempt=7)  # somebody else has it now
    assert hooks.flush()

    assert statuses(using) == ([Event.Status.PUBLISHING] if is_lost else [])
    assert arrived() == ([] if is_lost else [1])


@ON_SERVERS
def test_a_batch_that_lost_one_lease_tells_of_the_others_only(
    using: str, send: Send, arrived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_on = wire.send

    def send_and_lose(app: Any, messages: list[Any]) -> Any:
        Event.rows(using).filter(pk=ids[1]).update(attempt=99)
        return send_on(app, messages)

    monkeypatch.setattr(wire, "send", send_and_lose)
    with noting(signals.event_published) as published:
        with transaction.atomic(using=using):
            for number in range(3):
                send(number)
            ids = list(Event.rows(using).order_by("id").values_list("id", flat=True))
            monkeypatch.setattr(hooks.background, "add", waiting_for(3, hooks.background.add))
        assert hooks.flush()

    assert published == [ids[0], ids[2]]
    assert statuses(using) == [Event.Status.PUBLISHING]
    assert arrived() == [0, 1, 2]


@ON_SERVERS
def test_a_database_connection_that_dies_under_a_batch_repeats_nothing(
    using: str, send: Send, arrived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_on = wire.send

    def send_and_lose(app: Any, messages: list[Any]) -> Any:
        lose_connection(using)
        return send_on(app, messages)

    monkeypatch.setattr(wire, "send", send_and_lose)
    with transaction.atomic(using=using):
        send(1)
        send(2)
    assert hooks.flush(PATIENCE)

    assert statuses(using) == []
    assert arrived() == [1, 2]


@ON_SERVERS
def test_a_database_that_is_away_when_a_batch_is_settled_ends_neither_thread_nor_events(
    using: str, send: Send, arrived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(batches.BatchRun, "settle", _database_away)
        send(1)
        assert hooks.flush()
    thread = hooks.background._thread
    assert statuses(using) == [Event.Status.PUBLISHING]

    send(2)
    assert hooks.flush()
    assert hooks.background._thread is thread
    expire(using)
    sweep.relay_here(using, Budget.endless())

    assert statuses(using) == [Event.Status.SENT]
    assert arrived() == [1, 1, 2]


def test_one_database_that_is_away_keeps_no_message_of_another_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both are in one batch of the thread."""
    published: list[str] = []
    begun, both_wait = threading.Event(), threading.Event()

    def publish(waiting: list[Any]) -> None:
        published.append(waiting[0].event.alias)
        begun.set()
        assert both_wait.wait(PATIENCE)
        if len(published) == 2:
            raise OperationalError("away")

    monkeypatch.setattr(hooks.background, "publish", publish)
    for alias in ("first", "away", "third"):
        event = Event()
        event._state.db = alias
        hooks.background.add(hooks.Leased(event, 0.0))
        assert begun.wait(PATIENCE)
    both_wait.set()
    assert hooks.flush()

    assert published == ["first", "away", "third"]


@ON_SERVERS
def test_the_thread_keeps_no_connection_when_it_has_nothing_to_do(using: str, send: Send) -> None:
    send(1)
    assert hooks.flush()
    assert hooks.background._thread is not None, "idle, and not yet gone"
    processes.wait_until(lambda: others_connected(using) == 0, 3, "the connection to be closed")
    assert hooks.background._thread is not None


def waiting_for(count: int, add: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return ``add`` for so many together, so that they are one batch."""
    waiting: list[Any] = []

    def add_together(leased: Any) -> None:
        waiting.append(leased)
        if len(waiting) == count:
            with hooks.background._changed:
                for one in waiting:
                    add(one)

    return add_together


def others_connected(using: str) -> int:
    """Return how many connections to the test database there are besides this one."""
    statement = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database() "
        "AND id <> connection_id()",
    }[connections[using].vendor]
    with connections[using].cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0])


def _database_away(*_: Any) -> None:
    raise OperationalError("the database is away")
