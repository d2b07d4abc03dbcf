"""The clock that tests set forward: everything in both apps that asks the time sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import DateTimeField
from django.utils import timezone

from jaiminho_celery import cleanup as event_cleanup
from jaiminho_celery import sweep as relay
from jaiminho_celery import test as outbox_kit
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox
from parviraptor_celery import cleanup, clock, monitoring, sweep
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from parviraptor_celery.models import Pause, Tick
from parviraptor_celery.statements import database_time
from parviraptor_celery.test import VirtualClock, virtual_clock
from tests.integration.threads import at_once
from tests.testapp.models import FifoJob, FreeJob, LaneJob


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


@pytest.fixture
def later(using: str) -> Iterator[VirtualClock]:
    """The clock, after every statement that the engine keeps was composed without it."""
    for _ in range(2):
        jobs = FifoJob.enqueue(using=using), FifoJob.enqueue(using=using)
        run_lanes(FifoJob, using, [jobs[0].lane], Budget.endless())
        FreeJob.enqueue_many([FreeJob(), FreeJob()], using=using)
        run_pool(FreeJob, using, Budget.endless())
        sweep.rescue(FifoJob, using)
    FifoJob.rows(using).delete()
    FreeJob.rows(using).delete()
    with virtual_clock() as virtual:
        yield virtual


def is_about(moment: Any, expected: Any) -> bool:
    return abs(moment - expected) < timedelta(seconds=20)


def test_the_time_of_the_database_is_set_forward_and_put_right_again(using: str) -> None:
    before = database_time(using)
    with virtual_clock() as virtual:
        assert is_about(database_time(using), before)
        assert is_about(virtual.advance(hours=3, minutes=30), before + timedelta(hours=3.5))
        virtual.advance(timedelta(days=400, microseconds=1))
        assert is_about(database_time(using), before + timedelta(days=400, hours=3.5))
        assert is_about(clock.local_now(), virtual.now())
    assert is_about(database_time(using), before)
    assert is_about(clock.local_now(), before)


def test_a_lease_runs_out(using: str, later: VirtualClock) -> None:
    job = FifoJob.enqueue(using=using)
    assert job.claim()
    assert sweep.rescue(FifoJob, using) == 0
    later.advance(seconds=50)
    assert sweep.rescue(FifoJob, using) == 0
    later.advance(seconds=20)
    assert sweep.rescue(FifoJob, using) == 1


def test_a_lease_that_is_taken_later_holds_from_then_on(using: str, later: VirtualClock) -> None:
    later.advance(days=1)
    job = FifoJob.enqueue(using=using)
    assert job.claim()
    later.advance(seconds=50)
    assert sweep.rescue(FifoJob, using) == 0
    assert job.renew()
    later.advance(seconds=50)
    assert sweep.rescue(FifoJob, using) == 0


def test_a_job_that_was_put_back_is_due_after_its_back_off(using: str, later: VirtualClock) -> None:
    job = FifoJob.enqueue(using=using, script="temporary away")
    for minutes in (FifoJob.BACKOFF_STEP_MINUTES, FifoJob.BACKOFF_STEP_MINUTES):
        assert run_lanes(FifoJob, using, [job.lane], Budget.endless()).rows == 1
        assert run_lanes(FifoJob, using, [job.lane], Budget.endless()).rows == 0
        later.advance(minutes=minutes, seconds=1)
    assert FifoJob.rows(using).get().error_count == 2


def test_an_independent_job_is_due_after_its_back_off(using: str, later: VirtualClock) -> None:
    FreeJob.enqueue(using=using, script="temporary away")
    assert run_pool(FreeJob, using, Budget.endless()).rows == 1
    assert run_pool(FreeJob, using, Budget.endless()).rows == 0
    later.advance(minutes=FreeJob.BACKOFF_STEP_MINUTES)
    assert run_pool(FreeJob, using, Budget.endless()).rows == 1


def test_a_due_time_that_was_asked_for_comes(using: str, later: VirtualClock) -> None:
    later.advance(hours=5)
    job = LaneJob.enqueue(using=using, run_after=timedelta(hours=1))
    assert is_about(job.run_after, later.now() + timedelta(hours=1))
    assert run_lanes(LaneJob, using, [job.lane], Budget.endless()).rows == 0
    later.advance(hours=1)
    assert run_lanes(LaneJob, using, [job.lane], Budget.endless()).rows == 1


def test_the_cleaner_finds_what_has_become_old(using: str, later: VirtualClock) -> None:
    job = FifoJob.enqueue(using=using)
    run_lanes(FifoJob, using, [job.lane], Budget.endless())
    later.advance(days=6.9)
    assert cleanup.clean(FifoJob, using) == 0
    later.advance(days=0.2)
    assert cleanup.count_old(FifoJob, using) == 1
    assert cleanup.clean(FifoJob, using) == 1


def test_monitoring_sees_what_takes_too_long(
    using: str, later: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parviraptor_celery.registry.aliases_of", lambda _: [using])
    later.advance(days=1)  # and what is new by then is not old
    running, _ = FifoJob.enqueue(using=using), FifoJob.enqueue(using=using)
    assert running.claim()
    assert monitoring.health(FifoJob).is_fine
    later.advance(minutes=FifoJob.MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN + 1)
    assert monitoring.health(FifoJob).long_processing == 1
    later.advance(minutes=FifoJob.MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN)
    assert monitoring.health(FifoJob).long_unprocessed == 1


def test_a_tick_is_due_again(using: str, later: VirtualClock) -> None:
    assert Tick.objects.take("test", 60, using=using)
    assert not Tick.objects.take("test", 60, using=using)
    later.advance(minutes=1, seconds=1)
    assert Tick.objects.take("test", 60, using=using)


def test_rows_are_born_with_the_time_that_it_is(using: str, later: VirtualClock) -> None:
    later.advance(days=30)
    job, event, pause = FifoJob(), Event(), Pause()
    born = job.creation_date, job.modification_date, event.created_at, pause.paused_at
    assert all(is_about(moment, later.now()) for moment in born)


def test_workers_in_threads_see_it(using: str, later: VirtualClock) -> None:
    jobs = [
        FifoJob.enqueue(using=using, run_after=timedelta(hours=1)),
        FifoJob.enqueue(using=using),
    ]
    later.advance(hours=2)
    at_once(*[lambda: run_lanes(FifoJob, using, [jobs[0].lane], Budget.endless())] * 2)
    assert set(FifoJob.rows(using).values_list("status", flat=True)) == {"PROCESSED"}


def test_an_event_is_relayed_and_cleaned_in_its_time(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jaiminho_celery import registry

    known, published = dict(registry._functions), list[str]()

    @save_to_outbox(using=using, name="tests.virtual_clock")
    def publish(text: str) -> None:
        published.append(text)

    monkeypatch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
    try:
        with outbox_kit.virtual_clock() as virtual:
            publish("its hook died")
            assert relay.rescue(using) == 0
            virtual.advance(minutes=2)
            assert relay.rescue(using) == 1
            relay.relay_here(using, Budget.endless())
            assert published == ["its hook died"]
            assert event_cleanup.clean(using) == 0
            virtual.advance(days=15)
            assert event_cleanup.clean(using) == 1
    finally:
        registry._functions.clear()
        registry._functions.update(known)


# Its bounds


def test_an_error_in_the_block_puts_the_time_right() -> None:
    with pytest.raises(ZeroDivisionError), virtual_clock() as virtual:
        virtual.advance(days=1)
        _ = 1 / 0
    assert is_about(clock.local_now(), timezone.now())
    assert is_about(FifoJob().creation_date, timezone.now())


def test_there_is_one_at_a_time() -> None:
    with virtual_clock() as outer:
        outer.advance(days=1)
        with pytest.raises(RuntimeError, match="advance that one"), virtual_clock():
            pass
        assert is_about(clock.local_now(), outer.now())


def test_it_does_not_go_back() -> None:
    with virtual_clock() as virtual, pytest.raises(ValueError, match="only goes forward"):
        virtual.advance(seconds=-1)


def test_a_clock_whose_block_is_over_moves_nothing() -> None:
    with virtual_clock() as virtual:
        pass
    virtual.advance(days=1)
    assert is_about(clock.local_now(), timezone.now())


def test_a_statement_that_was_composed_while_the_clock_was_set_is_not_kept() -> None:
    composing, moved, texts = threading.Event(), threading.Event(), list[str]()

    @clock.kept
    def compose() -> str:
        composing.set()
        moved.wait(5)
        return str(clock._offset)

    slow = threading.Thread(target=lambda: texts.append(compose()))
    slow.start()
    composing.wait(5)
    with virtual_clock() as virtual:
        virtual.advance(days=1)
        moved.set()
        slow.join()
        assert compose() == "1 day, 0:00:00"
    assert texts == ["1 day, 0:00:00"]
    assert compose() == "0:00:00"


def test_the_default_of_a_date_stays_what_migrations_say() -> None:
    field: Any = FifoJob._meta.get_field("creation_date")
    assert isinstance(field, DateTimeField)
    with virtual_clock():
        assert field.deconstruct()[3]["default"] is timezone.now
