"""A hundred thousand jobs that can't run are in nobody's way: counted in reads, not in time."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from parviraptor_celery import sweep
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from tests.integration.reading import learn, multiply, reads
from tests.testapp.models import FreeJob, LaneJob

ROWS = 100_000
JOBS = 5
NOISE = 60
"""What a deeper index and pages that were split may add, over all of a measurement."""

FEW = 200
PARTIAL = pytest.mark.parametrize("using", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def kicks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    def kick(task: str, **arguments: Any) -> bool:
        sent.append(arguments)
        return True

    monkeypatch.setattr("parviraptor_celery.broker.kick", kick)
    return sent


@pytest.fixture(autouse=True)
def depths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The depth of the stack in each body."""
    seen: list[int] = []
    for queue in (LaneJob, FreeJob):
        monkeypatch.setattr(queue, "process", lambda _: seen.append(len(inspect.stack(0))))
    return seen


def cost_of_a_free_lane(using: str, depths: list[int]) -> tuple[int, int, int]:
    """Return what the kick of a lane with a few jobs costs: statements, reads, deepest stack."""
    lane = [LaneJob.enqueue(using=using, shop="free").lane for _ in range(JOBS)].pop()
    del depths[:]
    with CaptureQueriesContext(connections[using]) as queries, reads(using, LaneJob) as read:
        assert run_lanes(LaneJob, using, [lane], Budget.endless()).rows == JOBS
    assert len(depths) == JOBS
    statements = [q for q in queries.captured_queries if "pg_stat" not in q["sql"]]
    return len(statements), read.count, max(depths)


def not_due(head: LaneJob) -> None:
    LaneJob.rows(head.alias).filter(pk=head.pk).update(run_after="2999-01-01T00:00Z")


def failed(head: LaneJob) -> None:
    head.claim()
    head.rest("FAILED")


def ignored(head: LaneJob) -> None:
    """Its dependents, which failed because of it, stay behind."""
    failed(head)
    head.ignore()


def paused(head: LaneJob) -> None:
    head.pause_lane()


def running(head: LaneJob) -> None:
    head.claim()


BLOCKS = pytest.mark.parametrize("block", [not_due, failed, ignored, paused, running])


@BLOCKS
def test_a_lane_does_not_notice_them(
    using: str, block: Any, depths: list[int], kicks: list[dict[str, Any]]
) -> None:
    cost_of_a_free_lane(using, depths)  # what is asked only once is asked now
    first = cost_of_a_free_lane(using, depths)
    head = fill(using, block)
    learn(using, LaneJob)
    then = cost_of_a_free_lane(using, depths)
    assert (then[0], then[2]) == (first[0], first[2])
    assert then[1] <= first[1] + NOISE

    free = LaneJob.enqueue(using=using, shop="free")
    kicks.clear()
    with reads(using, LaneJob) as of_a_sweep:
        sweep.kick_lanes(LaneJob, using, "")
    assert of_a_sweep.count < FEW, of_a_sweep
    if block is failed:  # its lane is kicked, to fail a chunk of the jobs behind it
        assert sorted(kick["lanes"] for kick in kicks) == sorted([[free.lane], [head.lane]])
        return
    assert [kick["lanes"] for kick in kicks] == [[free.lane]]

    with reads(using, LaneJob) as of_its_own_kick:
        assert run_lanes(LaneJob, using, [head.lane], Budget.endless()).rows == 0
    assert of_its_own_kick.count < FEW, of_its_own_kick


def fill(using: str, block: Any) -> LaneJob:
    """Return a job that ``block`` keeps from running, with ROWS jobs behind it in its lane."""
    head: LaneJob = LaneJob.enqueue(using=using, shop="blocked")
    behind = LaneJob.enqueue(using=using, shop="blocked")
    block(head)
    if block is ignored:
        LaneJob.rows(using).filter(pk=behind.pk).update(status="FAILED", failed_by=head.pk)
    multiply(behind, ROWS - 1)
    return head


@PARTIAL
def test_a_newcomer_passes_over_those_that_failed_because_of_a_job_set_aside(using: str) -> None:
    head = fill(using, ignored)
    learn(using, LaneJob)
    LaneJob.enqueue(using=using, shop="blocked")
    with reads(using, LaneJob) as read:
        assert run_lanes(LaneJob, using, [head.lane], Budget.endless()).rows == 1
    assert read.count < FEW, read


@pytest.mark.parametrize("kind", ["not due", "leased"])
def test_an_independent_job_does_not_notice_them(using: str, kind: str, depths: list[int]) -> None:
    first = cost_of_an_independent_job(using, depths)
    one = FreeJob.enqueue(using=using)
    if kind == "leased":
        one.claim()
    else:
        FreeJob.rows(using).filter(pk=one.pk).update(run_after="2999-01-01T00:00Z")
    multiply(one, ROWS - 1)
    learn(using, FreeJob)
    then = cost_of_an_independent_job(using, depths)
    assert then[1] == first[1]
    assert then[0] <= first[0] + NOISE


def cost_of_an_independent_job(using: str, depths: list[int]) -> tuple[int, int]:
    """Return what a kick for one job costs: reads, and the deepest stack."""
    FreeJob.enqueue(using=using)
    del depths[:]
    with reads(using, FreeJob) as read:
        assert run_pool(FreeJob, using, Budget.endless()).rows == 1
    return read.count, max(depths)
