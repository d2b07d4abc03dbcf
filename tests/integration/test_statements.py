"""What each way through the outbox costs, in statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from jaiminho_celery import registry, sweep
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery.drains import Budget
from tests.integration.test_outbox import expire

Function = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody is nudged; what is registered here is forgotten again."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    known = dict(registry._functions)
    yield
    registry._functions.clear()
    registry._functions.update(known)


@pytest.fixture
def on_commit(using: str) -> Function:
    @save_to_outbox(using=using, name="tests.statements.on_commit")
    def publish(payload: Any) -> None: ...

    return publish


@pytest.fixture
def in_order(using: str) -> Function:
    @save_to_outbox_stream("stated", "keep-order", using=using, name="tests.statements.in_order")
    def publish(payload: Any) -> None: ...

    return publish


@contextmanager
def statements(using: str) -> Iterator[list[str]]:
    """Yield a list that in the end has the first word of each statement."""
    found: list[str] = []
    with CaptureQueriesContext(connections[using]) as queries:
        yield found
    found += [str(query["sql"]).split()[0] for query in queries]


def beside_frames(found: list[str]) -> list[str]:
    return [word for word in found if word not in ("BEGIN", "COMMIT")]


def test_an_event_costs_its_caller_an_insert_and_after_the_commit_a_delete(
    using: str, on_commit: Function
) -> None:
    on_commit("whose hook is the first")
    with statements(using) as found, transaction.atomic(using=using):
        on_commit("an event")
    assert found[:3] == ["BEGIN", "INSERT", "COMMIT"]
    assert beside_frames(found[3:]) == ["DELETE"]
    assert not Event.rows(using).exists()


def test_an_event_that_is_kept_costs_an_update_instead(
    using: str, on_commit: Function, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"PERSIST_ALL_EVENTS": True}
    with statements(using) as found, transaction.atomic(using=using):
        on_commit("an event")
    assert found == ["BEGIN", "INSERT", "COMMIT", "UPDATE"]


def test_each_event_of_a_transaction_costs_the_same(using: str, on_commit: Function) -> None:
    with statements(using) as found, transaction.atomic(using=using):
        for number in range(3):
            on_commit(number)
    assert found[:5] == ["BEGIN", *["INSERT"] * 3, "COMMIT"]
    assert beside_frames(found[5:]) == ["DELETE"] * 3


def test_an_event_that_keeps_its_order_costs_a_lock_and_an_insert(
    using: str, in_order: Function
) -> None:
    with statements(using) as found, transaction.atomic(using=using):
        in_order("an event")
    lock = ["SELECT"] if using == "postgresql" else []
    look = ["SELECT"]  # is somebody at the lane already, or is a nudge needed?
    assert found == ["BEGIN", *lock, "INSERT", "COMMIT", *look]


def test_the_relay_of_ordered_events_settles_one_and_claims_the_next_together(
    using: str, in_order: Function
) -> None:
    def cost_of(count: int) -> list[str]:
        for number in range(count):
            in_order(number)
        with statements(using) as found:
            assert sweep.relay_here(using, Budget.endless()) == count
        return found

    few, many = cost_of(10), cost_of(20)
    each = (len(many) - len(few)) / 10
    assert each <= 6, "a look, and a transaction that locks, settles and claims"
    assert many.count("UPDATE") - few.count("UPDATE") == 20, "settled, and claimed"


def test_the_relay_of_what_dead_hooks_left_begins_and_settles_each_event(
    using: str, on_commit: Function
) -> None:
    def cost_of(count: int) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
            for number in range(count):
                on_commit(number)
        expire(using)
        sweep.rescue(using)
        with statements(using) as found:
            assert sweep.relay_here(using, Budget.endless()) == count
        return found

    few, many = cost_of(10), cost_of(30)
    each = (len(many) - len(few)) / 20
    assert each <= 5, "a transaction that settles and begins, and its share of a lease for ten"
