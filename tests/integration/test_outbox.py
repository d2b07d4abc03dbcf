"""The promises of the outbox, each with the interleaving that would break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from jaiminho_celery import barriers, execution, registry, sweep
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery.drains import Budget
from tests.integration.threads import OpenTransaction, at_once, open_transaction

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)

published: list[Any] = []


class Crash(BaseException):
    """The process dies here: nothing of the product may catch this."""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start with nothing published; these tests are the relay themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    monkeypatch.setattr(barriers, "PATIENCE_SECONDS", 0.05)
    known = dict(registry._functions)
    published.clear()
    yield
    registry._functions.clear()
    registry._functions.update(known)


@pytest.fixture
def ordered(using: str) -> Callable[[Any], None]:
    """A function whose events keep their order."""

    @save_to_outbox_stream(
        "ordered", PublishStrategyType.KEEP_ORDER, using=using, name="tests.ordered"
    )
    def publish(payload: Any) -> None:
        published.append(payload)

    return publish


@pytest.fixture
def on_commit(using: str) -> Callable[[Any], None]:
    """A function whose events are published right after the commit."""

    @save_to_outbox(using=using, name="tests.on_commit")
    def publish(payload: Any) -> None:
        published.append(payload)
        if payload == "crash":
            raise Crash
        if payload == "fail":
            raise ConnectionError("the other side is away")

    return publish


def relay(using: str) -> int:
    return sweep.relay_here(using, Budget.endless())


def expire(using: str) -> None:
    """Let all leases run out."""
    leased = Event.rows(using).filter(status=Event.Status.PUBLISHING)
    leased.update(lease_until=timezone.now() - timedelta(minutes=1))


@CONCURRENT
def test_an_event_that_commits_late_with_a_lower_id_is_not_overtaken(
    using: str, ordered: Callable[[Any], None]
) -> None:
    with open_transaction(using, lambda: ordered("first")) as late:
        ordered("second")
        assert relay(using) == 0
        late.committed()
        relay(using)
    assert published == ["first", "second"]


@CONCURRENT
def test_a_writer_that_rolls_back_holds_nobody(using: str, ordered: Callable[[Any], None]) -> None:
    with open_transaction(using, lambda: ordered("never")) as late:
        ordered("second")
        late.rolled_back()
        relay(using)
    assert published == ["second"]


@CONCURRENT
def test_a_savepoint_that_was_rolled_back_does_not_open_the_barrier(
    using: str, ordered: Callable[[Any], None]
) -> None:
    def write_first_and_roll_a_second_back() -> None:
        ordered("first")
        with pytest.raises(ValueError, match="undo"), transaction.atomic(using=using):
            ordered("never")
            raise ValueError("undo")

    with open_transaction(using, write_first_and_roll_a_second_back) as late:
        ordered("second")
        assert relay(using) == 0
        late.committed()
        relay(using)
    assert published == ["first", "second"]


@CONCURRENT
def test_a_writer_of_another_key_holds_nobody(using: str) -> None:
    @save_to_outbox_stream(
        "keyed", "keep-order", using=using, key=lambda payload: payload[0], name="tests.keyed"
    )
    def publish(payload: Any) -> None:
        published.append(payload)

    with open_transaction(using, lambda: publish(["a", 1])) as late:
        publish(["b", 2])
        relay(using)
        assert published == [["b", 2]]
        late.committed()
    relay(using)
    assert published == [["b", 2], ["a", 1]]


@CONCURRENT
def test_an_event_that_was_published_is_settled_before_the_relay_waits_for_a_writer(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash while it waits must not repeat the event."""
    late: list[OpenTransaction] = []
    seen: list[list[str]] = []

    def wait() -> None:
        seen.append([event.status for event in Event.rows(using).order_by("id")])
        late[0].committed()

    monkeypatch.setattr(barriers, "_wait", wait)
    monkeypatch.setattr(barriers, "PATIENCE_SECONDS", 20)
    with ExitStack() as writers:

        @save_to_outbox_stream("ordered", "keep-order", using=using, name="tests.ordered")
        def publish(payload: Any) -> None:
            published.append(payload)
            if payload == "first":
                late.append(writers.enter_context(open_transaction(using, lambda: publish("2nd"))))
                publish("third")

        publish("first")
        relay(using)

    assert seen[0] == ["SENT", "WAITING"]
    assert published == ["first", "2nd", "third"]


def test_two_relays_at_once_deliver_each_event_once_and_in_order(
    using: str, ordered: Callable[[Any], None]
) -> None:
    for number in range(40):
        ordered(number)

    at_once(*[lambda: relay(using)] * 3)

    assert published == list(range(40))


def test_two_relays_at_once_deliver_each_unordered_event_once(
    using: str, on_commit: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
    for number in range(40):
        on_commit(number)
    expire(using)

    at_once(*[lambda: relay(using)] * 3)

    assert sorted(published) == list(range(40))


def test_a_failing_head_holds_its_own_key_and_no_other(using: str) -> None:
    broken = {"a"}

    @save_to_outbox_stream(
        "keyed", "keep-order", using=using, key=lambda payload: payload[0], name="tests.keyed"
    )
    def publish(payload: Any) -> None:
        if payload[0] in broken:
            raise ConnectionError("away")
        published.append(payload)

    for payload in (["a", 1], ["b", 1], ["a", 2], ["b", 2]):
        publish(payload)
    relay(using)
    assert published == [["b", 1], ["b", 2]]

    broken.clear()
    Event.rows(using).update(run_after=timezone.now() - timedelta(seconds=1))
    relay(using)
    assert published == [["b", 1], ["b", 2], ["a", 1], ["a", 2]]


def test_an_event_whose_hook_died_is_relayed_when_its_lease_has_run_out(
    using: str, on_commit: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(execution, "run", _die)
        with pytest.raises(Crash), transaction.atomic(using=using):
            on_commit("saved")
    assert relay(using) == 0, "the relay must leave the row to its hook while the lease holds"

    expire(using)
    relay(using)

    assert published == ["saved"]
    assert Event.rows(using).get().status == Event.Status.SENT


def test_a_crash_between_publishing_and_settling_repeats_the_one_event(
    using: str, on_commit: Callable[[Any], None]
) -> None:
    on_commit("before")
    with pytest.raises(Crash), transaction.atomic(using=using):
        on_commit("crash")
    expire(using)
    with pytest.raises(Crash):
        relay(using)

    assert published == ["before", "crash", "crash"]
    assert Event.rows(using).count() == 1


def test_what_a_rolled_back_savepoint_wrote_is_not_published_whichever_way_they_nest(
    using: str, on_commit: Callable[[Any], None], ordered: Callable[[Any], None]
) -> None:
    with transaction.atomic(using=using):
        on_commit("outer")
        with pytest.raises(ValueError, match="undo"), transaction.atomic(using=using):
            on_commit("never")
            with transaction.atomic(using=using):
                on_commit("never, though its own savepoint held")
                ordered("never")
            raise ValueError("undo")
        with transaction.atomic(using=using):
            ordered("inner")
    relay(using)
    assert published == ["outer", "inner"]
    assert [event.status for event in Event.rows(using)] == [Event.Status.SENT]


def test_nothing_of_a_rolled_back_transaction_is_kept(
    using: str, on_commit: Callable[[Any], None], ordered: Callable[[Any], None]
) -> None:
    with pytest.raises(ValueError, match="undo"), transaction.atomic(using=using):
        on_commit("never")
        ordered("never")
        raise ValueError("undo")
    relay(using)
    assert published == []
    assert not Event.rows(using).exists()


def test_an_event_that_failed_waits_for_its_back_off_by_the_clock_of_the_database(
    using: str, on_commit: Callable[[Any], None], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jaiminho_celery.backoff.full_jitter", lambda *_, **__: timedelta(seconds=90)
    )
    on_commit("fail")

    event = Event.rows(using).get()
    waits = (event.run_after - timezone.now()).total_seconds()
    assert (event.status, event.error_count) == ("WAITING", 1)
    assert waits == pytest.approx(90, abs=20)
    assert relay(using) == 0


def test_a_hook_that_comes_after_half_of_its_lease_has_to_win_the_event_again(
    using: str, on_commit: Callable[[Any], None], settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"LEASE_SECONDS": 0.000001}
    with transaction.atomic(using=using):
        on_commit("late")
        Event.rows(using).update(attempt=7)  # somebody else has it now
    assert published == []


def test_two_events_of_a_lane_can_not_be_leased_at_once(
    using: str, ordered: Callable[[Any], None]
) -> None:
    from django.db import IntegrityError

    ordered(1)
    ordered(2)
    first, second = Event.rows(using).order_by("id")
    assert first.claim()
    with pytest.raises(IntegrityError):
        second.claim()


def _die(*_: Any, **__: Any) -> None:
    raise Crash
