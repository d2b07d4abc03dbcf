"""A kick's first look claims what it finds: what may be claimed, and what a lost answer means."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import DataError, IntegrityError, OperationalError, connections
from django.utils import timezone

from parviraptor_celery import claims, first_claims
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from tests.integration.threads import open_transaction
from tests.testapp.models import FifoJob, FreeJob, LaneJob

pytestmark = pytest.mark.parametrize("using", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    ran: list[int] = []
    for queue in (FifoJob, FreeJob, LaneJob):
        monkeypatch.setattr(queue, "process", lambda job: ran.append(job.pk))
    return ran


def lose_the_answer(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next claim by one statement go through, and its answer get lost."""
    ask, is_lost = claims.ask, list[bool]()

    def asked(*args: Any) -> Any:
        found = ask(*args)
        if not is_lost:
            is_lost.append(True)
            connections[using].close()
            raise OperationalError("server closed the connection") from psycopg.OperationalError()
        return found

    monkeypatch.setattr(claims, "ask", asked)


def states(queue: Any, using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))


def test_the_head_is_claimed_and_begun(using: str) -> None:
    job = FifoJob.enqueue(using=using, script="ignore")
    claimed = first_claims.claim_head(FifoJob.rows(using), job.lane).row
    assert (claimed.pk, claimed.status, claimed.attempt, claimed.script) == (
        job.pk,
        "PROCESSING",
        1,
        "ignore",
    )
    assert (claimed.token, claimed.claimed_pk) == (1, job.pk)
    row = FifoJob.rows(using).get()
    assert row.running_lane == job.lane
    assert row.begun_at is not None
    assert row.lease_until > row.begun_at
    assert claimed.rest("PROCESSED")


def test_of_a_lane_that_runs_nothing_is_claimed(using: str) -> None:
    first, _ = FifoJob.enqueue(using=using), FifoJob.enqueue(using=using)
    assert first.claim()
    found = first_claims.claim_head(FifoJob.rows(using), first.lane)
    assert found == first_claims.Found(is_running=True)


def test_an_empty_lane_is_known_to_be_empty(using: str) -> None:
    found = first_claims.claim_head(FifoJob.rows(using), "0" * 32)
    assert found == first_claims.Found(is_empty=True)


@pytest.mark.parametrize("hindrance", ["later", "paused", "held"])
def test_what_may_not_run_is_not_claimed(using: str, hindrance: str) -> None:
    if hindrance == "held":
        FifoJob.enqueue(using=using)
        FifoJob.rows(using).update(status="FAILED")
    later = timezone.now() + timedelta(hours=1) if hindrance == "later" else None
    job = FifoJob.enqueue(using=using, run_after=later)
    if hindrance == "paused":
        FifoJob.pause(using=using)
    found = first_claims.claim_head(FifoJob.rows(using), job.lane)
    assert found == first_claims.Found()
    assert FifoJob.rows(using).get(pk=job.pk).status == "NEW"


def test_a_lane_that_was_taken_in_between_is_left_to_the_other(
    using: str, bodies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = FifoJob.enqueue(using=using), FifoJob.enqueue(using=using)

    def taken(*_: Any) -> Any:
        assert FifoJob.rows(using).get(pk=first.pk).claim()
        raise IntegrityError("running_lane")

    monkeypatch.setattr(first_claims, "claim_head", taken)
    assert run_lanes(FifoJob, using, [first.lane], Budget.endless()).rows == 0
    assert bodies == []
    assert second.pk


def test_of_an_independent_queue_the_first_begins_and_the_rest_is_leased(using: str) -> None:
    jobs = [FreeJob.enqueue(using=using, priority=priority) for priority in (0, 5, 3)]
    batch = first_claims.claim_batch(FreeJob.rows(using), 2)
    assert [row.pk for row in batch.rows] == [jobs[1].pk, jobs[2].pk]
    assert batch.has_begun
    begun = dict(FreeJob.rows(using).values_list("pk", "begun_at"))
    assert begun[jobs[1].pk] is not None
    assert begun[jobs[2].pk] is begun[jobs[0].pk] is None
    assert states(FreeJob, using) == ["NEW", "PROCESSING", "PROCESSING"]
    assert all(row.rest("PROCESSED") for row in batch.rows)


def test_where_a_job_came_due_both_kinds_are_compared(using: str, bodies: list[int]) -> None:
    at_once = FreeJob.enqueue(using=using)
    due = FreeJob.enqueue(using=using, run_after=timezone.now() - timedelta(minutes=1), priority=1)
    assert first_claims.claim_batch(FreeJob.rows(using), 5) == first_claims.Batch([])
    run_pool(FreeJob, using, Budget.endless())
    assert bodies == [due.pk, at_once.pk]


def test_what_others_have_locked_is_passed_over(using: str) -> None:
    jobs = [FreeJob.enqueue(using=using) for _ in range(3)]
    first = FreeJob.rows(using).filter(pk=jobs[0].pk)
    with open_transaction(using, first.exists_locked):
        batch = first_claims.claim_batch(FreeJob.rows(using), 2)
    assert [row.pk for row in batch.rows] == [jobs[1].pk, jobs[2].pk]


@pytest.mark.parametrize("queue", [FifoJob, FreeJob])
def test_what_was_claimed_runs_though_the_answer_was_lost(
    using: str, queue: Any, bodies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [queue.enqueue(using=using) for _ in range(3)]
    lose_the_answer(using, monkeypatch)
    _work_off(queue, using, jobs[0].lane)
    assert bodies == [job.pk for job in jobs]
    assert states(queue, using) == ["PROCESSED"] * 3
    assert set(queue.rows(using).values_list("attempt", flat=True)) == {1}


@pytest.mark.parametrize("queue", [FifoJob, FreeJob])
def test_what_ran_and_could_not_be_settled_does_not_run_again_for_a_lost_answer(
    using: str, queue: Any, bodies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queue.enqueue(using=using)
    with monkeypatch.context() as patch:
        patch.setattr("parviraptor_celery.settling.alone", _away)
        patch.setattr("parviraptor_celery.handoff.settle_and_claim", _away)
        with pytest.raises(OperationalError):
            _work_off(queue, using, job.lane)
    assert bodies == [job.pk]
    assert states(queue, using) == ["PROCESSING"]
    lose_the_answer(using, monkeypatch)
    _work_off(queue, using, job.lane)
    assert bodies == [job.pk]  # until its lease has run out


def test_what_the_first_try_claims_after_all_runs(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statement waited for a lock when the connection broke; the second waited for it."""
    job = FifoJob.enqueue(using=using)

    def claimed_by_the_first(rows: Any, lane: str) -> first_claims.Found:
        assert rows.candidate(lane, "NEW").claim()
        return first_claims.Found(is_running=True)

    monkeypatch.setattr(first_claims, "claim_head", claimed_by_the_first)
    found = first_claims.claim_head_again(FifoJob.rows(using), job.lane)
    assert found.row.pk == job.pk


@pytest.mark.parametrize("queue", [FifoJob, FreeJob])
def test_what_was_claimed_and_the_driver_can_not_read_is_given_back(
    using: str, queue: Any, bodies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A date past all dates, for one; the steps one by one find out which row it is of."""
    jobs = [queue.enqueue(using=using) for _ in range(3)]
    ask, asked = claims.ask, list[bool]()

    def unread(*args: Any) -> Any:
        found = ask(*args)
        if not asked:
            asked.append(True)
            raise DataError("timestamp too small")
        return found

    monkeypatch.setattr(claims, "ask", unread)
    _work_off(queue, using, jobs[0].lane)
    assert bodies == [job.pk for job in jobs]
    assert states(queue, using) == ["PROCESSED"] * 3
    assert set(queue.rows(using).values_list("worker_deaths", flat=True)) == {0}


def _away(*_: Any, **__: Any) -> Any:
    raise OperationalError("the database is away")


def _work_off(queue: Any, using: str, lane: str | None) -> None:
    if lane is None:
        run_pool(queue, using, Budget.endless())
    else:
        run_lanes(queue, using, [lane], Budget.endless())
