"""Batches, their order, what rolled back, and what everybody is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext

from jaiminho_celery import hooks, publisher, signals, sweep, wire
from jaiminho_celery.models import Event
from parviraptor_celery.drains import Budget
from tests.integration.background.common import (
    ON_SERVERS,
    PATIENCE,
    Send,
    noting,
    numbers,
    sender,
    statuses,
)
from tests.integration.black_hole import in_front_of
from tests.integration.test_outbox import expire


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
