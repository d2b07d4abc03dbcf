"""Messages of committed transactions are published by a thread; the caller waits for nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from jaiminho_celery import batches, hooks, publisher, signals, sweep, wire
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from parviraptor_celery import broker
from parviraptor_celery.drains import Budget
from tests.integration.black_hole import in_front_of
from tests.integration.test_celery_messages import drain_queue, make_app
from tests.integration.test_outbox import expire
from tests.integration.test_reconnect import lose_connection
from tests.supervision import processes

ON_SERVERS = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
PATIENCE = 20.0

Send = Callable[[int], Any]


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    broker.close_breaker()
    yield
    hooks.flush()
    broker.close_breaker()


@pytest.fixture
def send(using: str, redis_url: str, queue_name: str) -> Send:
    """Send a task that is known by its number."""
    return sender(using, redis_url, queue_name)


@pytest.fixture
def arrived(redis_url: str, queue_name: str) -> Callable[[], list[int]]:
    """Take the numbers of the tasks that are at the broker, in no order."""
    return lambda: numbers(redis_url, queue_name)


def sender(using: str, url: str, queue: str) -> Send:
    app = make_app(OutboxCelery, url, queue)
    app.outbox_using = using
    return lambda number: app.tasks["wire.add"].delay(number, 0)


def numbers(url: str, queue: str) -> list[int]:
    return sorted(json.loads(body)[0][0] for body, _, _ in drain_queue(url, queue))


def statuses(using: str) -> list[str]:
    return list(Event.rows(using).order_by("id").values_list("status", flat=True))


class Gate:
    """Holds what goes to the broker until it opens, and notes each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.reached, self.opened = threading.Event(), threading.Event()
        self._send = wire.send

    def send(self, app: Any, messages: list[Any]) -> list[Exception | None]:
        self.batches.append([json.loads(message["body"])[0][0] for message in messages])
        self.reached.set()
        assert self.opened.wait(PATIENCE), "nobody opened the gate"
        return self._send(app, messages)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(wire, "send", gate.send)
    yield gate
    gate.opened.set()
    hooks.flush()


@pytest.fixture
def no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an event is handed to the thread."""

    def refuse(*_: Any) -> None:
        raise AssertionError("handed to the background")

    monkeypatch.setattr(hooks.background, "add", refuse)


@ON_SERVERS
def test_a_commit_does_not_wait_for_a_broker_that_swallows_everything(
    using: str, broker_url: str, queue_name: str, settings: Any
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"BROKER_TIMEOUT_SECONDS": 30}
    with in_front_of(broker_url) as hole:
        send = sender(using, hole.url, queue_name)
        send(1)
        assert hooks.flush()
        hole.swallow()

        with transaction.atomic(using=using):
            send(2)
        assert statuses(using) == [Event.Status.PUBLISHING], "nobody knows yet what became of it"

        hole.heal()
        assert hooks.flush()
        assert statuses(using) == []
    assert set(numbers(broker_url, queue_name)) == {1, 2}


@ON_SERVERS
def test_many_commits_become_few_batches_in_their_order(
    using: str, send: Send, gate: Gate, arrived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[list[str]] = []
    publish = hooks.background.publish

    def count(waiting: list[Any]) -> None:
        with CaptureQueriesContext(connections[using]) as queries:
            publish(waiting)
        statements.append([query["sql"].split()[0] for query in queries])

    monkeypatch.setattr(hooks.background, "publish", count)
    send(0)
    assert gate.reached.wait(PATIENCE)
    for number in range(1, 60):
        send(number)
    gate.opened.set()
    assert hooks.flush()

    assert gate.batches == [[0], list(range(1, 60))]
    assert [found.count("DELETE") for found in statements] == [1, 1]
    assert len(statements[1]) <= 7, "its transaction, and a few around it"
    assert statuses(using) == []
    assert arrived() == list(range(60))


@ON_SERVERS
def test_what_is_more_than_memory_should_hold_goes_to_the_relay(
    using: str, send: Send, gate: Gate, arrived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "MOST_WAITING", 2)
    send(0)
    assert gate.reached.wait(PATIENCE)
    for number in range(1, 6):
        send(number)
    gate.opened.set()
    assert hooks.flush()

    assert statuses(using) == [Event.Status.PUBLISHING] * 3
    assert arrived() == [0, 1, 2]
    expire(using)
    sweep.relay_here(using, Budget.endless())
    assert arrived() == [3, 4, 5]


@ON_SERVERS
def test_flush_tells_when_it_has_waited_in_vain(using: str, send: Send, gate: Gate) -> None:
    send(0)
    assert gate.reached.wait(PATIENCE)
    assert not hooks.flush(0.01)
    gate.opened.set()
    assert hooks.flush()


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


@ON_SERVERS
def test_a_hook_inside_a_transaction_publishes_at_once(
    using: str, send: Send, arrived: Any, no_background: None
) -> None:
    """As in a TestCase, whose rows nobody else sees."""
    with transaction.atomic(using=using):
        with TestCase.captureOnCommitCallbacks(using=using, execute=True):
            send(1)
        assert statuses(using) == []
    assert arrived() == [1]


@pytest.mark.parametrize("using", ["sqlite"], indirect=True)
def test_on_sqlite_the_caller_publishes(
    using: str, send: Send, arrived: Any, no_background: None
) -> None:
    send(1)
    assert statuses(using) == []
    assert arrived() == [1]


@ON_SERVERS
def test_the_background_can_be_turned_off(
    using: str, send: Send, arrived: Any, no_background: None, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"PUBLISH_IN_BACKGROUND": False}
    send(1)
    assert statuses(using) == []
    assert arrived() == [1]


def test_the_background_tells_what_became_of_each_event(
    using: str, send: Send, arrived: Any
) -> None:
    with noting(signals.event_published) as published, transaction.atomic(using=using):
        send(1)
        send(2)
        ids = list(Event.rows(using).order_by("id").values_list("id", flat=True))
        transaction.on_commit(hooks.flush, using=using)
    assert hooks.flush()
    assert published == ids
    assert arrived() == [1, 2]


def test_the_background_tells_what_failed(using: str, queue_name: str) -> None:
    send = sender(using, "redis://127.0.0.1:1/0", queue_name)
    with noting(signals.event_failed_to_publish) as failed:
        send(1)
        assert hooks.flush()
    event = Event.rows(using).get()
    assert failed == [event.pk]
    assert (event.status, event.error_count) == (Event.Status.WAITING, 0)


def test_what_a_rolled_back_savepoint_sent_never_leaves_whichever_way_they_nest(
    using: str, send: Send, arrived: Any
) -> None:
    with transaction.atomic(using=using):
        send(1)
        with pytest.raises(ValueError, match="undo"), transaction.atomic(using=using):
            send(-1)
            with transaction.atomic(using=using):
                send(-2)
            raise ValueError("undo")
        with transaction.atomic(using=using):
            with pytest.raises(ValueError, match="undo"), transaction.atomic(using=using):
                send(-3)
                raise ValueError("undo")
            send(2)
    with pytest.raises(ValueError, match="undo"), transaction.atomic(using=using):
        with transaction.atomic(using=using):
            send(-4)
        raise ValueError("undo")
    assert hooks.flush()

    assert statuses(using) == []
    assert arrived() == [1, 2]


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


@contextmanager
def noting(signal: Any) -> Iterator[list[int]]:
    """Yield a list of the ids of the events that ``signal`` is sent with."""
    found: list[int] = []

    def note(event_id: int, **_: Any) -> None:
        found.append(event_id)

    signal.connect(note)
    try:
        yield found
    finally:
        signal.disconnect(note)


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
