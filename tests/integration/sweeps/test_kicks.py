"""Kicks that are left out, kicks for many, and rows that only a sweep can find."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from parviraptor_celery import kicks, sweep, tasks
from parviraptor_celery.dispatch import run_lanes
from parviraptor_celery.drains import Budget
from tests.integration.sweeps.common import Kicks, lanes_of
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob


def test_jobs_that_are_due_are_kicked_though_many_that_are_not_wait_before_them(
    using: str, kicked: Kicks
) -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    FreeJob.rows(using).bulk_create([FreeJob(run_after=tomorrow) for _ in range(kicks.BACKLOG + 5)])
    for _ in range(3):
        FreeJob.enqueue(using=using)
    assert [task for task, _ in kicked] == [kicks.PROCESS] * 3


@pytest.mark.parametrize(("jobs", "messages"), [(1, 1), (3, 3), (200, kicks.BACKLOG)])
def test_many_independent_jobs_wake_several_workers(
    using: str, kicked: Kicks, jobs: int, messages: int
) -> None:
    FreeJob.enqueue_many([FreeJob() for _ in range(jobs)], using=using)
    assert [task for task, _ in kicked] == [kicks.PROCESS] * messages


@pytest.mark.usefixtures("_only_here")
@pytest.mark.parametrize("sweep_lanes", [5, 500])
def test_jobs_of_more_lanes_than_messages_may_name_are_all_kicked_at_once(
    using: str, kicked: Kicks, settings: Any, monkeypatch: pytest.MonkeyPatch, sweep_lanes: int
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "SWEEP_LANES": sweep_lanes}
    monkeypatch.setattr(kicks, "MOST_LANES", 10)
    jobs = LaneJob.enqueue_many([LaneJob(number=at) for at in range(17)], using=using)
    assert [task for task, _ in kicked] == [kicks.DISPATCH]

    assert lanes_of(follow(kicked)) == {job.lane for job in jobs}


@pytest.mark.usefixtures("_only_here")
def test_the_kicks_for_many_lanes_do_not_depend_on_where_sweeps_stopped(
    using: str, kicked: Kicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kicks, "MOST_LANES", 10)
    AtomicJob.enqueue_many([AtomicJob(shop=str(at)) for at in range(8)], using=using)
    LaneJob.rows(using).bulk_create([LaneJob(number=at) for at in range(12)])
    for queue in (AtomicJob, LaneJob):
        sweep.kick_waiting(queue, using)  # each stops in the middle of its lanes
    kicked.clear()

    jobs = LaneJob.enqueue_many([LaneJob(number=at) for at in range(12)], using=using)

    assert lanes_of(follow(kicked)) == {job.lane for job in jobs}


def follow(kicked: Kicks) -> Kicks:
    """Run the sweeps that were asked for, and those that they ask for; return the other kicks."""
    others: Kicks = []
    for _ in range(20):
        batch, kicked[:] = list(kicked), []
        others += [kick for kick in batch if kick[0] != kicks.DISPATCH]
        for task, about in batch:
            if task == kicks.DISPATCH:
                tasks.dispatch_jobs(**about)
        if not kicked:
            return others
    raise AssertionError("one sweep asks for the next without end")


@pytest.mark.usefixtures("_only_here")
def test_a_deferred_job_behind_one_that_is_not_due_is_found(using: str, kicked: Kicks) -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    FifoJob.rows(using).bulk_create([FifoJob(run_after=tomorrow), FifoJob(status="DEFERRED")])
    lane = FifoJob.rows(using)[0].lane

    assert sweep.kick_waiting(FifoJob, using) == 1

    assert lanes_of(kicked) == {lane}
    run_lanes(FifoJob, using, [lane], Budget.endless())
    assert statuses(FifoJob, using) == ["NEW", "PROCESSED"]


@pytest.mark.usefixtures("_only_here")
def test_jobs_without_a_lane_get_theirs_from_a_sweep(using: str, kicked: Kicks) -> None:
    shops = [LaneJob(shop=shop) for shop in "aba"]
    lanes = [job.lane for job in LaneJob.enqueue_many(shops, using=using)]
    LaneJob.rows(using).update(lane=None)  # the queue was independent when they were inserted
    kicked.clear()

    sweep.sweep_all(force=True)

    assert list(LaneJob.rows(using).order_by("id").values_list("lane", flat=True)) == lanes
    assert lanes_of(kicked) == set(lanes)


def statuses(queue: Any, using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))
