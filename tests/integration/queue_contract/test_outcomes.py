"""Behaviour 4: deferred, ignored, and not processable."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from parviraptor_celery.exceptions import DeferJob, IgnoreJob, UnprocessableJob
from parviraptor_celery.test import run_queue, virtual_clock
from tests.integration.queue_contract.common import (
    A_MOMENT,
    QUEUES,
    Bodies,
    pause_of,
    reloaded,
    statuses,
)
from tests.testapp.models import FreeJob, LaneJob

pytestmark = pytest.mark.usefixtures("one_database", "celery")


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
