"""Whatever a body, a function or a receiver throws: it costs its own row, and one run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections
from django.utils import timezone

from jaiminho_celery import registry, send
from jaiminho_celery import signals as event_signals
from jaiminho_celery import sweep as relay
from jaiminho_celery.models import Event
from parviraptor_celery import exceptions, signals, sweep
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from parviraptor_celery.models import AbstractJob
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, Note


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


POISON = {
    "nul": (ValueError("a\0b"), "a\\x00b"),
    "file-name": (ValueError("file \udcff"), "file \\udcff"),
    "unprintable": (Unprintable(), "(its message can't be printed)"),
}
poisoned = pytest.mark.parametrize(("error", "text"), POISON.values(), ids=list(POISON))


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """These tests are the workers and the relay themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    known = dict(registry._functions)
    yield
    registry._functions.clear()
    registry._functions.update(known)


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], list[int]]:
    """Give the queues another body; returns the ids of the jobs that it ran for."""

    def replace(body: Callable[[Any], None]) -> list[int]:
        ran: list[int] = []

        def process(self: Any) -> None:
            ran.append(self.pk)
            body(self)

        for queue in (FifoJob, FreeJob, AtomicJob):
            monkeypatch.setattr(queue, "process", process)
        return ran

    return replace


@poisoned
def test_an_error_text_that_no_database_stores_fails_its_job_with_what_can_be_stored(
    using: str, bodies: Any, error: Exception, text: str
) -> None:
    def body(job: Any) -> None:
        if job.script == "poison":
            raise error

    for queue in (FifoJob, FreeJob, AtomicJob):
        ran = bodies(body)
        first, _ = enqueue(queue, using, "poison", "")
        work_off_through_dead_leases(queue, using)

        assert ran.count(first.pk) == 1
        assert outcomes(queue, using)[0] == ("FAILED", text)
        assert type(error).__name__ in queue.rows(using).get(pk=first.pk).error_traceback


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (exceptions.InvalidJobError, "FAILED"),
        (exceptions.IgnoreJob, "IGNORED"),
        (exceptions.DeferJob, "DEFERRED"),
        (exceptions.UnprocessableJob, "NEW"),
    ],
)
def test_the_texts_of_chosen_outcomes_are_made_storable_too(
    using: str, bodies: Any, kind: type[Exception], status: str
) -> None:
    def body(job: Any) -> None:
        raise kind("a\0b \udcff")

    bodies(body)
    (job,) = enqueue(FifoJob, using, "")
    run_lanes(FifoJob, using, [job.lane], Budget(rows=1, seconds=60))

    ((now, message),) = outcomes(FifoJob, using)
    assert now == status
    assert message == ("" if status == "NEW" else "a\\x00b \\udcff")


@poisoned
def test_an_event_whose_error_no_database_stores_is_counted_and_waits(
    using: str, error: Exception, text: str
) -> None:
    calls: list[int] = []

    @send.save_to_outbox(using=using, name="tests.poison")
    def publish(number: int) -> None:
        calls.append(number)
        raise error

    publish(1)
    assert [(event.status, event.error_count) for event in Event.rows(using)] == [("WAITING", 1)]
    Event.rows(using).update(run_after=timezone.now() - timedelta(seconds=1))
    relay.relay_here(using, Budget(rows=1, seconds=60))

    event = Event.rows(using).get()
    assert (event.status, event.error_count, len(calls)) == ("WAITING", 2, 2)
    assert text in event.error_message


@pytest.mark.parametrize(
    ("field", "value"),
    [("result", "not a number"), ("result", 10**30), ("script", None)],
    ids=["no-number", "out-of-range", "not-null"],
)
@pytest.mark.parametrize("queue", [FifoJob, FreeJob, AtomicJob])
def test_a_field_that_the_database_refuses_fails_the_job_that_set_it(
    using: str, bodies: Any, queue: type[AbstractJob], field: str, value: Any
) -> None:
    def body(job: Any) -> None:
        if job.script == "poison":
            setattr(job, field, value)

    ran = bodies(body)
    first, second = enqueue(queue, using, "poison", "")
    work_off_through_dead_leases(queue, using)

    (status, message), after = outcomes(queue, using)
    assert status == "FAILED"
    assert "died" not in message
    assert ran.count(first.pk) == 1
    if queue is FreeJob:
        assert ran == [first.pk, second.pk]
    else:
        assert after == ("FAILED", "dependent jobs failed")


def test_an_atomic_body_that_swallows_what_broke_its_transaction_fails_at_once(
    using: str, bodies: Any
) -> None:
    def body(job: Any) -> None:
        notes = Note.objects.using(using)
        notes.create(pk=1, text="once")
        try:
            notes.create(pk=1, text="twice")
        except IntegrityError:
            return

    ran = bodies(body)
    (job,) = enqueue(AtomicJob, using, "")
    work_off_through_dead_leases(AtomicJob, using)

    ((status, message),) = outcomes(AtomicJob, using)
    assert (status, ran) == ("FAILED", [job.pk])
    assert "died" not in message
    assert not Note.objects.using(using).exists()


def test_an_atomic_body_that_closes_its_connection_fails_at_once(using: str, bodies: Any) -> None:
    ran = bodies(lambda job: connections[using].close())
    (job,) = enqueue(AtomicJob, using, "")
    work_off_through_dead_leases(AtomicJob, using)

    ((status, message),) = outcomes(AtomicJob, using)
    assert (status, ran) == ("FAILED", [job.pk])
    assert "process() closed the connection" in message


class Receiver:
    """A receiver that raises; as an object it has no ``__qualname__`` for Django's log."""

    def __call__(self, **_: Any) -> None:
        raise ValueError("not my day")


@pytest.mark.parametrize("name", ["job_claimed", "job_finished"])
def test_a_receiver_that_raises_does_not_strand_the_successor(using: str, name: str) -> None:
    signal, receiver = getattr(signals, name), Receiver()
    (first, _) = enqueue(FifoJob, using, "", "")
    signal.connect(receiver)
    try:
        run_lanes(FifoJob, using, [first.lane], Budget.endless())
    finally:
        signal.disconnect(receiver)
    assert [status for status, _ in outcomes(FifoJob, using)] == ["PROCESSED", "PROCESSED"]


@pytest.mark.parametrize("name", ["event_settled", "event_published_by_events_relay"])
def test_a_receiver_that_raises_does_not_stop_the_relay(using: str, name: str) -> None:
    published: list[int] = []

    @send.save_to_outbox_stream("ordered", "keep-order", using=using, name="tests.receiver")
    def publish(number: int) -> None:
        published.append(number)

    publish(1)
    publish(2)
    signal, receiver = getattr(event_signals, name), Receiver()
    signal.connect(receiver)
    try:
        relay.relay_here(using, Budget.endless())
    finally:
        signal.disconnect(receiver)
    assert published == [1, 2]
    assert {event.status for event in Event.rows(using)} <= {"SENT"}


def test_a_body_that_leaves_autocommit_off_takes_no_later_outcome_along(
    using: str, bodies: Any
) -> None:
    def body(_: Any) -> None:
        if len(ran) == 1:
            connections[using].set_autocommit(False)

    ran = bodies(body)
    (first, *_) = enqueue(FifoJob, using, "", "", "")
    run_lanes(FifoJob, using, [first.lane], Budget.endless())
    connections[using].close()  # what nobody committed is gone now

    assert [status for status, _ in outcomes(FifoJob, using)] == ["PROCESSED"] * 3
    assert len(ran) == 3


def test_a_function_that_leaves_autocommit_off_takes_no_later_outcome_along(using: str) -> None:
    calls: list[int] = []

    @send.save_to_outbox_stream("ordered", "keep-order", using=using, name="tests.autocommit")
    def publish(number: int) -> None:
        calls.append(number)
        if number == 1:
            connections[using].set_autocommit(False)

    for number in (1, 2, 3):
        publish(number)
    relay.relay_here(using, Budget.endless())
    connections[using].close()

    assert {event.status for event in Event.rows(using)} <= {"SENT"}
    assert calls == [1, 2, 3]


def enqueue(queue: type[AbstractJob], using: str, *scripts: str) -> list[Any]:
    queue.enqueue_many([queue(script=script) for script in scripts], using=using)
    return list(queue.rows(using).order_by("id"))


def outcomes(queue: type[AbstractJob], using: str) -> list[tuple[str, str]]:
    return list(queue.rows(using).order_by("id").values_list("status", "error_message"))


def work_off_through_dead_leases(queue: type[AbstractJob], using: str) -> None:
    """Run what is due as often as a job may cost its worker, each lease having run out between."""
    lanes = sorted({lane for lane in queue.rows(using).values_list("lane", flat=True) if lane})
    for _ in range(4):
        if queue.dependent_fields is None:
            run_pool(queue, using, Budget.endless())
        else:
            run_lanes(queue, using, lanes, Budget.endless())
        past = timezone.now() - timedelta(minutes=5)
        queue.rows(using).filter(status="PROCESSING").update(lease_until=past)
        sweep.rescue(queue, using)
