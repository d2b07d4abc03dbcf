"""What the job queues promise to their users, behaviour by behaviour, on every kind of database.

Continues unit/parviraptor/test_contract.py: public names only. Behaviours with real workers and
processes are in test_queue_contract_workers.py.
"""

from __future__ import annotations

import inspect
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from itertools import pairwise
from typing import Any

import pytest
from celery import Celery
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parviraptor_celery.exceptions import (
    CauseStillFailed,
    DeferJob,
    IgnoreJob,
    UnprocessableJob,
)
from parviraptor_celery.models import BackoffStrategy
from parviraptor_celery.test import QueueTestCase, crash_at, run_queue, virtual_clock
from tests.integration.threads import at_once, open_transaction
from tests.supervision import processes
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob
from tests.unit.conftest import messages, using_celery

pytestmark = pytest.mark.usefixtures("one_database", "celery")

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
IN_ORDER = pytest.mark.parametrize("queue", [FifoJob, LaneJob, AtomicJob])
QUEUES = pytest.mark.parametrize("queue", [FifoJob, LaneJob, AtomicJob, FreeJob])
PROCESS = "parviraptor_celery.process_jobs"
DISPATCH = "parviraptor_celery.dispatch_jobs"
SECONDS = 20.0
HOUR = timedelta(hours=1)
A_MOMENT = timedelta(milliseconds=100)
APP = Celery("contract", broker="memory://", set_as_current=False)

Bodies = Callable[..., list[int]]


@pytest.fixture
def celery() -> Iterator[Celery]:
    """A broker in this process, to which nobody listens."""
    with using_celery(APP):
        messages(APP)
        yield APP


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> Bodies:
    """Give a queue another body; return the ids of the jobs that it ran for, in order."""

    def replace(queue: Any, body: Callable[[Any], None] = lambda job: None) -> list[int]:
        ran: list[int] = []

        def process(job: Any) -> None:
            ran.append(job.pk)
            body(job)

        monkeypatch.setattr(queue, "process", process)
        return ran

    return replace


def reloaded(job: Any) -> Any:
    return type(job).objects.get(pk=job.pk)


def statuses(queue: Any) -> list[str]:
    return list(queue.objects.order_by("pk").values_list("status", flat=True))


def elsewhere(*queues: Any) -> None:
    """Let another worker run what it finds of `queues`, and come back when it finds no more."""
    at_once(*[lambda queue=queue: run_queue(queue) for queue in queues])


def kicks_of(app: Celery) -> list[tuple[str, dict[str, Any]]]:
    return [(one.headers["task"], one.payload[1]) for one in messages(app)]


def in_a_worker(app: Celery, task: str, **about: Any) -> Any:
    """Run a task in this thread, which belongs to another worker."""
    with using_celery(app):
        return app.tasks[task](**about)


def pause_of(job: Any) -> timedelta:
    row = reloaded(job)
    pause: timedelta = row.run_after - row.modification_date
    return pause


# 1


@IN_ORDER
def test_behaviour_1_a_constraint_of_the_database_refuses_a_second_row_that_is_processing(
    queue: Any, using: str, bodies: Bodies
) -> None:
    first, second = queue.enqueue(), queue.enqueue()
    refused: list[int] = []

    def take_the_second_too(job: Any) -> None:
        if job.pk == second.pk:
            return
        taken = {"status": "PROCESSING", "lease_until": timezone.now(), "running_lane": job.lane}
        with pytest.raises(IntegrityError), transaction.atomic(using=using):
            queue.objects.filter(pk=second.pk).update(**taken)
        refused.append(job.pk)

    bodies(queue, take_the_second_too)
    run_queue(queue)
    assert refused == [first.pk]
    assert statuses(queue) == ["PROCESSED"] * 2


def test_behaviour_1_while_a_job_runs_other_workers_run_other_groups_only(bodies: Bodies) -> None:
    a1, a2, b1 = LaneJob.enqueue(shop="a"), LaneJob.enqueue(shop="a"), LaneJob.enqueue(shop="b")
    seen: list[Any] = []

    def look(job: Any) -> None:
        if job.pk == a1.pk:
            elsewhere(LaneJob, LaneJob)
            seen.extend(statuses(LaneJob))

    ran = bodies(LaneJob, look)
    run_queue_of_first_lane(a1)
    assert seen == ["PROCESSING", "NEW", "PROCESSED"]
    assert ran == [a1.pk, b1.pk, a2.pk]


def run_queue_of_first_lane(job: Any) -> None:
    """Let a worker begin with the group of `job`, as a kick for it does."""
    about = {"queue": job._meta.label, "using": job._state.db, "lanes": [job.lane]}
    APP.tasks[PROCESS](**about)


@IN_ORDER
@pytest.mark.parametrize("number_of_threads", [1, 4])
def test_behaviour_1_the_order_is_by_id(queue: Any, number_of_threads: int) -> None:
    jobs = [queue() for _ in range(8)]
    ran = QueueTestCase().process_queue(queue, jobs, number_of_threads)
    assert [body.pk for body in ran] == sorted(body.pk for body in ran)
    for before, after in pairwise(ran):
        assert before.ended <= after.begun


@CONCURRENT
@IN_ORDER
def test_behaviour_1_a_lower_id_that_commits_late_runs_next(
    queue: Any, using: str, bodies: Bodies
) -> None:
    with open_transaction(using, queue.enqueue) as late:
        second, third = queue.enqueue(), queue.enqueue()

        def let_it_commit(job: Any) -> None:
            if job.pk == second.pk:
                late.committed()

        ran = bodies(queue, let_it_commit)
        run_queue(queue)
    first = queue.objects.order_by("pk").first()
    assert first.pk < second.pk
    assert ran == [second.pk, first.pk, third.pk]


@pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
@pytest.mark.parametrize("end", ["returns", "fails", "temporarily", "defers", "hands back"])
def test_behaviour_1_who_was_cut_off_for_longer_than_its_lease_records_nothing(
    queue: Any, end: str, bodies: Bodies
) -> None:
    job = queue.enqueue()
    between: list[Any] = []

    def be_cut_off(running: Any) -> None:
        running.result = running.attempt
        if running.attempt == 1:
            clock.advance(minutes=2)
            elsewhere(queue)
            between.extend(queue.objects.values())
            _end(running, end)

    ran = bodies(queue, be_cut_off)
    with virtual_clock() as clock:
        run_queue(queue)
    assert ran == [job.pk] * 2, "the bodies overlapped"
    assert (between[0]["status"], between[0]["result"]) == ("PROCESSED", 2)
    assert list(queue.objects.values()) == between


def _end(job: Any, how: str) -> None:
    match how:
        case "fails":
            raise ValueError
        case "temporarily":
            job.raise_temporary_failure("away")
        case "defers":
            raise DeferJob
        case "hands back":
            assert not job.update_job_for_being_resumed()


# 2


@QUEUES
@pytest.mark.parametrize(
    ("strategy", "step", "minutes"),
    [
        (BackoffStrategy.EXPONENTIAL, 2, [1, 2, 4, 8, 16, *[32] * 14]),
        (BackoffStrategy.EXPONENTIAL, 3, [1, 3, 9, 27, 81, 243, 243]),
        (BackoffStrategy.EXPONENTIAL, 0.5, [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 32]),
        (BackoffStrategy.CONSTANT, 2, [2, 2, 2, 2, 2, 2, 2]),
        (BackoffStrategy.CONSTANT, 0.5, [0.5, 0.5, 0.5]),
    ],
)
def test_behaviour_2_the_arithmetic_of_back_off_and_of_the_threshold(
    queue: Any,
    strategy: BackoffStrategy,
    step: float,
    minutes: list[float],
    bodies: Bodies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "BACKOFF_STRATEGY", strategy)
    monkeypatch.setattr(queue, "BACKOFF_STEP_MINUTES", step)
    monkeypatch.setattr(queue, "TEMPORARY_FAILURE_THRESHOLD", len(minutes))
    ran = bodies(queue, lambda job: job.raise_temporary_failure("away"))
    job = queue.enqueue()
    with virtual_clock() as clock:
        for errors, expected in enumerate(minutes, start=1):
            assert run_queue(queue) == 1
            assert (reloaded(job).status, reloaded(job).error_count) == ("NEW", errors)
            pause = pause_of(job)
            assert abs(pause - timedelta(minutes=expected)) < A_MOMENT
            if errors == 1:
                clock.advance(pause / 2)
                assert run_queue(queue) == 0, "not before its time"
            clock.advance(pause + A_MOMENT)
        assert run_queue(queue) == 1
    assert len(ran) == len(minutes) + 1
    assert (reloaded(job).status, reloaded(job).error_count) == ("FAILED", len(minutes) + 1)


def test_behaviour_2_a_temporary_failure_holds_its_own_group_and_no_other(bodies: Bodies) -> None:
    a1, a2, b1 = LaneJob.enqueue(shop="a"), LaneJob.enqueue(shop="a"), LaneJob.enqueue(shop="b")
    tries: list[int] = []

    def fail_once(job: Any) -> None:
        if job.pk == a1.pk and not tries:
            tries.append(job.pk)
            job.raise_temporary_failure("away")

    ran = bodies(LaneJob, fail_once)
    with virtual_clock() as clock:
        run_queue(LaneJob)
        assert sorted(ran) == [a1.pk, b1.pk]
        clock.advance(pause_of(a1) + A_MOMENT)
        run_queue(LaneJob)
    assert ran[2:] == [a1.pk, a2.pk]


# 3


def fail_for(*pks: int) -> Callable[[Any], None]:
    def fail(job: Any) -> None:
        if job.pk in pks:
            raise ValueError("broken")

    return fail


@IN_ORDER
def test_behaviour_3_a_failed_job_fails_its_waiting_dependents_newcomers_included(
    queue: Any, bodies: Bodies
) -> None:
    cause, second, deferred = queue.enqueue(), queue.enqueue(), queue.objects.create()
    queue.objects.filter(pk=deferred.pk).update(status="DEFERRED")
    ran = bodies(queue, fail_for(cause.pk))
    run_queue(queue)
    newcomer = queue.enqueue()
    run_queue(queue)
    assert ran == [cause.pk]
    assert "broken" in reloaded(cause).error_message
    for job in (second, deferred, newcomer):
        row = reloaded(job)
        assert (row.status, row.error_message) == ("FAILED", "dependent jobs failed")
        assert row.failed_by == cause.pk, "each dependent knows its cause"
    assert reloaded(cause).failed_by is None


def test_behaviour_3_other_groups_and_independent_jobs_do_not_fail(bodies: Bodies) -> None:
    cause, other = LaneJob.enqueue(shop="a"), LaneJob.enqueue(shop="b")
    bodies(LaneJob, fail_for(cause.pk))
    run_queue(LaneJob)
    assert reloaded(other).status == "PROCESSED"
    first, second = FreeJob.enqueue(), FreeJob.enqueue()
    bodies(FreeJob, fail_for(first.pk))
    run_queue(FreeJob)
    assert (reloaded(first).status, reloaded(second).status) == ("FAILED", "PROCESSED")


@IN_ORDER
def test_behaviour_3_retrying_the_cause_brings_its_dependents_back_in_order(
    queue: Any, bodies: Bodies
) -> None:
    done, cause, second, third = (queue.enqueue() for _ in range(4))
    bodies(queue, fail_for(cause.pk))
    run_queue(queue)
    for dependent in (third, second):
        with pytest.raises(CauseStillFailed, match=str(cause.pk)):
            reloaded(dependent).retry()
    assert statuses(queue) == ["PROCESSED", "FAILED", "FAILED", "FAILED"]
    ran = bodies(queue)
    reloaded(cause).retry()
    assert statuses(queue) == ["PROCESSED", "NEW", "NEW", "NEW"]
    assert {(row.error_message, row.failed_by) for row in queue.objects.all()} == {("", None)}
    newcomer = queue.enqueue()
    run_queue(queue)
    assert ran == [cause.pk, second.pk, third.pk, newcomer.pk]
    assert reloaded(done).attempt == 1


@IN_ORDER
def test_behaviour_3_of_two_causes_each_brings_back_its_own_dependents(
    queue: Any, bodies: Bodies
) -> None:
    first, dependent = queue.enqueue(), queue.enqueue()
    bodies(queue, fail_for(first.pk))
    run_queue(queue)
    other = queue.objects.create(status="FAILED")
    reloaded(first).retry()
    assert [reloaded(job).status for job in (first, dependent, other)] == ["NEW", "NEW", "FAILED"]


@IN_ORDER
@pytest.mark.parametrize("decision", ["retry", "ignore", "delete"])
def test_behaviour_3_newcomers_fail_until_the_cause_is_retried_ignored_or_deleted(
    queue: Any, decision: str, bodies: Bodies
) -> None:
    cause, dependent = queue.enqueue(), queue.enqueue()
    bodies(queue, fail_for(cause.pk))
    run_queue(queue)
    ran = bodies(queue)
    getattr(reloaded(cause), decision)()
    newcomer = queue.enqueue()
    run_queue(queue)
    assert reloaded(newcomer).status == "PROCESSED"
    if decision == "retry":
        assert ran == [cause.pk, dependent.pk, newcomer.pk]
        return
    assert (ran, reloaded(dependent).status) == ([newcomer.pk], "FAILED")
    reloaded(dependent).retry()
    run_queue(queue)
    assert reloaded(dependent).status == "PROCESSED"


@IN_ORDER
def test_behaviour_3_final_rows_are_never_rewritten(
    queue: Any, bodies: Bodies, celery: Celery
) -> None:
    final = ("PROCESSED", "SQUASHED", "IGNORED")
    before = [queue.objects.create(status=status, error_message="kept") for status in final]
    cause, dependent = queue.enqueue(), queue.enqueue()
    after = [queue.objects.create(status=status, error_message="kept") for status in final]
    rows = queue.objects.filter(pk__in=[job.pk for job in before + after]).order_by("pk")
    untouched = list(rows.values())

    bodies(queue, fail_for(cause.pk))
    run_queue(queue)
    assert (reloaded(cause).status, reloaded(dependent).status) == ("FAILED", "FAILED")
    reloaded(cause).retry()
    with virtual_clock() as clock:
        clock.advance(minutes=5)
        celery.tasks[DISPATCH](force=True)
        run_queue(queue)
    reloaded(cause).ignore()
    assert list(rows.values()) == untouched


# 4


@QUEUES
def test_behaviour_4_a_deferred_job_runs_when_no_new_job_of_its_group_is_due_without_back_off(
    queue: Any, bodies: Bodies
) -> None:
    first, second = queue.enqueue(), queue.enqueue()
    later = queue.enqueue(run_after=timedelta(hours=1))

    def defer_twice(job: Any) -> None:
        if job.pk == first.pk and job.attempt < 3:
            raise DeferJob("others first")

    ran = bodies(queue, defer_twice)
    run_queue(queue)
    assert ran == [first.pk, second.pk, first.pk, first.pk], "at once, though one is still to come"
    assert (reloaded(first).status, reloaded(first).error_count) == ("PROCESSED", 2)
    assert statuses(queue) == ["PROCESSED", "PROCESSED", "NEW"]
    assert reloaded(later).attempt == 0


def test_behaviour_4_a_deferred_job_of_an_independent_queue_waits_for_the_whole_queue(
    bodies: Bodies,
) -> None:
    first = FreeJob.enqueue()
    others = [FreeJob.enqueue().pk for _ in range(12)]  # more than are leased at a time

    def defer_once(job: Any) -> None:
        if job.pk == first.pk and job.attempt == 1:
            raise DeferJob

    ran = bodies(FreeJob, defer_once)
    run_queue(FreeJob)
    assert ran == [first.pk, *others, first.pk]


@QUEUES
@pytest.mark.parametrize(("raised", "status"), [(DeferJob, "DEFERRED"), (IgnoreJob, "IGNORED")])
def test_behaviour_4_deferred_and_ignored_jobs_do_not_hold_their_group(
    queue: Any, raised: type[Exception], status: str, bodies: Bodies
) -> None:
    first, second = queue.enqueue(), queue.enqueue()
    seen: list[list[str]] = []

    def step_aside(job: Any) -> None:
        if job.pk == second.pk:
            seen.append(statuses(queue))
        elif job.attempt == 1:
            raise raised("aside")

    ran = bodies(queue, step_aside)
    run_queue(queue)
    assert seen == [[status, "PROCESSING"]]
    assert ran == ([first.pk, second.pk, first.pk] if raised is DeferJob else [first.pk, second.pk])


@QUEUES
@pytest.mark.parametrize("how", ["is_processable", "UnprocessableJob"])
def test_behaviour_4_what_is_not_processable_goes_back_uncounted_and_pauses_its_group_a_minute(
    queue: Any, how: str, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = queue.enqueue(), queue.enqueue()
    runs: list[int] = []

    def is_processable(job: Any) -> bool:
        runs.append(job.pk)
        return bool(how == "UnprocessableJob" or runs.count(first.pk) > 1 or job.pk != first.pk)

    def process(job: Any) -> None:
        if job.pk == first.pk and how == "UnprocessableJob" and runs.count(first.pk) == 1:
            raise UnprocessableJob

    monkeypatch.setattr(queue, "is_processable", is_processable)
    bodies(queue, process)
    is_alone = queue is FreeJob
    with virtual_clock() as clock:
        run_queue(queue)
        assert runs == ([first.pk, second.pk] if is_alone else [first.pk])
        assert (reloaded(first).status, reloaded(first).error_count) == ("NEW", 0)
        assert abs(pause_of(first) - timedelta(minutes=1)) < A_MOMENT
        clock.advance(seconds=50)
        assert run_queue(queue) == 0
        clock.advance(seconds=11)
        run_queue(queue)
    assert statuses(queue) == ["PROCESSED"] * 2
    assert runs == ([first.pk, second.pk, first.pk] if is_alone else [first.pk] * 2 + [second.pk])
    assert reloaded(first).error_count == 0


def test_behaviour_4_other_groups_go_on(bodies: Bodies, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = LaneJob.enqueue(shop="a"), LaneJob.enqueue(shop="b")
    monkeypatch.setattr(LaneJob, "is_processable", lambda job: job.shop != "a")
    ran = bodies(LaneJob)
    run_queue(LaneJob)
    assert (ran, reloaded(a).status, reloaded(b).status) == ([b.pk], "NEW", "PROCESSED")


# 5


@QUEUES
@pytest.mark.parametrize("point", ["claimed", "processed"])
def test_behaviour_5_a_worker_that_dies_gives_its_job_back_when_its_lease_has_run_out(
    queue: Any, point: str, bodies: Bodies
) -> None:
    job, behind = queue.enqueue(), queue.enqueue()
    ran = bodies(queue)
    with virtual_clock() as clock:
        with crash_at(point):
            run_queue(queue)
        clock.advance(seconds=50)
        run_queue(queue)
        assert reloaded(job).status == "PROCESSING", "its lease holds"
        clock.advance(seconds=15)
        run_queue(queue)
    assert statuses(queue) == ["PROCESSED"] * 2
    assert ran.count(job.pk) == (2 if point == "processed" else 1)
    assert ran.count(behind.pk) == 1
    assert (reloaded(job).worker_deaths, reloaded(job).error_count) == (1, 0)
    assert reloaded(behind).worker_deaths == 0


@QUEUES
@pytest.mark.parametrize("deaths", [1, 3])
def test_behaviour_5_a_job_that_keeps_killing_workers_fails(
    queue: Any, deaths: int, using: str, bodies: Bodies, settings: Any
) -> None:
    if deaths != 3:  # the default
        settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "MAX_WORKER_DEATHS": deaths}
    job = queue.enqueue()
    ran = bodies(queue)
    with virtual_clock() as clock:
        for death in range(1, deaths + 1):
            with crash_at("processed"):
                run_queue(queue)
            assert reloaded(job).status == "PROCESSING"
            clock.advance(minutes=2)
            if death < deaths:
                continue
            run_queue(queue)
    assert len(ran) == deaths
    assert (reloaded(job).status, reloaded(job).worker_deaths) == ("FAILED", deaths)
    assert f"died {deaths} times" in reloaded(job).error_message


def test_behaviour_5_jobs_that_were_claimed_and_not_begun_pay_nothing(
    celery: Celery, bodies: Bodies
) -> None:
    with transaction.atomic(using=FreeJob.objects.db):
        jobs = [FreeJob.enqueue() for _ in range(5)]
    task, about = kicks_of(celery)[0]
    leased: list[int] = []
    ran = bodies(FreeJob, lambda job: leased.append(statuses(FreeJob).count("PROCESSING")))
    with virtual_clock() as clock:
        with crash_at("processed"):
            celery.tasks[task](**about)
        assert leased == [5], "they had been claimed together"
        clock.advance(minutes=2)
        run_queue(FreeJob)
    assert Counter(ran) == {job.pk: 1 + (job.pk == jobs[0].pk) for job in jobs}
    assert [reloaded(job).worker_deaths for job in jobs] == [1, 0, 0, 0, 0]


@CONCURRENT  # in SQLite the transaction of the body is the only one that writes
def test_behaviour_5_the_lease_of_a_job_of_an_atomic_queue_is_renewed_likewise(
    using: str, bodies: Bodies, settings: Any
) -> None:
    test_behaviour_5_a_heartbeat_renews_the_lease_every_third_of_it(
        AtomicJob, using, bodies, settings
    )


@pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
def test_behaviour_5_a_heartbeat_renews_the_lease_every_third_of_it(
    queue: Any, using: str, bodies: Bodies, settings: Any
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "LEASE_SECONDS": 1.5}
    queue.enqueue()
    seen: list[Any] = []

    def live_longer_than_the_lease(job: Any) -> None:
        [watched] = at_once(watch)
        seen.extend(watched)

    def watch() -> list[Any]:
        rows = [queue.objects.get()]

        def has_changed() -> bool:
            row = queue.objects.get()
            if row.lease_until != rows[-1].lease_until:
                rows.append(row)
            return len(rows) == 5

        processes.wait_until(has_changed, SECONDS, "four heartbeats")
        assert run_queue(queue) == 0, "it is not taken away"
        return rows

    ran = bodies(queue, live_longer_than_the_lease)
    run_queue(queue)
    assert len(ran) == 1
    leases = [row.lease_until for row in seen]
    pauses = [later - earlier for earlier, later in pairwise(leases)]
    assert sorted(pauses)[0] > timedelta(seconds=0.45)
    assert sorted(pauses)[1] < timedelta(seconds=0.9)
    assert leases[-1] - leases[0] > timedelta(seconds=1.5)
    assert len({row.modification_date for row in seen}) == 1, "no transition"
    assert statuses(queue) == ["PROCESSED"]
    assert queue.objects.get().worker_deaths == 0


@pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
def test_behaviour_5_handing_back_at_shutdown_costs_nothing(
    queue: Any, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, behind = queue.objects.create(), queue.objects.create()

    def be_told_to_stop(running: Any) -> None:
        running.result = running.attempt
        if running.attempt == 1 and running.pk == job.pk:
            os.kill(os.getpid(), signal.SIGTERM)
            processes.wait_until(lambda: is_back(job), SECONDS, "the job to be handed back")

    def is_back(one: Any) -> bool:
        return bool(reloaded(one).status == "NEW")

    def hand_back(running: Any) -> None:
        assert running.update_job_for_being_resumed()

    ran = bodies(queue, be_told_to_stop)
    monkeypatch.setattr(queue, "on_job_terminated", hand_back)
    with own_signal_handlers():
        call_command("process_queue", "testapp", queue.__name__, stdout=StringIO())
    assert ran == [job.pk]
    row = reloaded(job)
    assert (row.status, row.error_count, row.worker_deaths, row.run_after) == ("NEW", 0, 0, None)
    assert row.result is None, "what that run did is not recorded"
    assert reloaded(behind).status == "NEW"
    run_queue(queue)
    assert ran == [job.pk, job.pk, behind.pk]
    assert [reloaded(one).worker_deaths for one in (job, behind)] == [0, 0]


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)


# 6


@pytest.mark.parametrize("status", ["NEW", "FAILED"])
def test_behaviour_6_waiting_rows_behind_a_blocked_head_slow_nobody_down(
    using: str, status: str, bodies: Bodies
) -> None:
    """Also not the sweep. Two to the power of 17 rows here; the benchmarks have a million."""
    bodies(LaneJob)
    head = LaneJob.objects.create(shop="blocked", run_after=timezone.now() + timedelta(days=1))
    LaneJob.objects.create(shop="blocked", status=status)
    before = cost_of_one(using)
    columns = [field.column for field in LaneJob._meta.concrete_fields if not field.primary_key]
    listing, table = ", ".join(columns), LaneJob._meta.db_table
    with connections[using].cursor() as cursor:
        for _ in range(17):
            cursor.execute(
                f"INSERT INTO {table} ({listing}) SELECT {listing} FROM {table} "
                f"WHERE shop = 'blocked' AND id > {head.pk}"
            )
        cursor.execute({"mariadb": f"ANALYZE TABLE {table}"}.get(using, "ANALYZE"))
    assert LaneJob.objects.filter(shop="blocked").count() > 100_000
    after = cost_of_one(using)
    assert after[0] == before[0], "statements"
    assert after[1] == before[1], "frames of the stack"
    assert after[2] < before[2] * 5 + 0.005, "seconds"


def cost_of_one(using: str) -> tuple[int, int, float]:
    """Return statements, depth of the stack, and least seconds that a job of a free lane needs."""
    costs: list[tuple[int, int, float]] = []
    depths: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LaneJob, "process", lambda job: depths.append(len(inspect.stack(0))))
        for _ in range(5):
            LaneJob.enqueue(shop="free")
            with CaptureQueriesContext(connections[using]) as queries:
                begun = time.perf_counter()
                run_queue(LaneJob)
                seconds = time.perf_counter() - begun
            costs.append((len(queries), depths[-1], seconds))
    assert len(depths) == 5
    return min(cost[0] for cost in costs), max(depths), min(cost[2] for cost in costs)


# 7


@QUEUES
def test_behaviour_7_a_tick_of_beat_may_come_twice(
    queue: Any, celery: Celery, bodies: Bodies
) -> None:
    ran = bodies(queue)
    queue.objects.bulk_create([queue()])
    ticks = at_once(*[lambda: in_a_worker(celery, DISPATCH)] * 2)
    assert ticks.count(True) == 1, "one of two does the work"
    kicks = kicks_of(celery)
    assert kicks
    celery.tasks[DISPATCH](force=True)
    kicks += kicks_of(celery)
    for task, about in kicks * 2:
        celery.tasks[task](**about)
    celery.tasks["parviraptor_celery.clean_jobs"]()
    celery.tasks["parviraptor_celery.clean_jobs"]()
    assert (len(ran), statuses(queue)) == (1, ["PROCESSED"])


@QUEUES
def test_behaviour_7_a_tick_of_beat_may_come_late(
    queue: Any, celery: Celery, bodies: Bodies
) -> None:
    dies, lost, due_later = queue.enqueue(), queue.enqueue(), queue.enqueue(run_after=HOUR)
    ran = bodies(queue)
    with virtual_clock() as clock:
        with crash_at("processed"):
            run_queue(queue)
        kicks_of(celery)
        clock.advance(days=3)
        celery.tasks[DISPATCH]()
        for task, about in kicks_of(celery):
            celery.tasks[task](**about)
    assert statuses(queue) == ["PROCESSED"] * 3
    assert sorted(ran) == [dies.pk, dies.pk, lost.pk, due_later.pk]


@QUEUES
def test_behaviour_7_a_kick_that_comes_twice_does_nothing(
    queue: Any, celery: Celery, bodies: Bodies
) -> None:
    ran = bodies(queue)
    job = queue.enqueue()
    [(task, about)] = kicks_of(celery)
    at_once(*[lambda: in_a_worker(celery, task, **about)] * 3)
    assert (ran, reloaded(job).attempt) == ([job.pk], 1)
