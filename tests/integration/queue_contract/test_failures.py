"""Behaviours 2 and 3: back-off, and what a failed job means for those behind it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from parviraptor_celery.exceptions import CauseStillFailed
from parviraptor_celery.models import BackoffStrategy
from parviraptor_celery.test import run_queue, virtual_clock
from tests.integration.queue_contract.common import (
    A_MOMENT,
    DISPATCH,
    IN_ORDER,
    QUEUES,
    Bodies,
    pause_of,
    reloaded,
    statuses,
)
from tests.testapp.models import FreeJob, LaneJob

pytestmark = pytest.mark.usefixtures("one_database", "celery")


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
