"""Nobody heard whether it went through: what is somebody else's is not taken for one's own.

That one's own work is recognised, the crash enumeration shows at each step.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import transaction

from parviraptor_celery import execution, sweep
from parviraptor_celery.dispatch import JobLaneFeed, JobPoolFeed
from parviraptor_celery.drains import Budget
from parviraptor_celery.test import virtual_clock
from tests.integration.threads import closing_connections
from tests.testapp.models import FifoJob, FreeJob


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def in_another_thread(body: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(closing_connections, body).result()


def test_what_another_thread_of_this_process_has_claimed_is_not_ours(using: str) -> None:
    seen = FifoJob.enqueue(using=using)
    assert in_another_thread(FifoJob.rows(using).get().claim)
    assert not seen.claim_again()
    assert (seen.status, seen.attempt, seen.token) == ("NEW", 0, None)


def test_what_this_thread_has_claimed_is_ours_and_held(using: str) -> None:
    seen = FifoJob.enqueue(using=using)
    assert FifoJob.rows(using).get().claim()
    assert seen.claim_again()
    assert (seen.status, seen.attempt, seen.token) == ("PROCESSING", 1, 1)
    assert seen.rest("PROCESSED")


def test_a_successor_that_another_thread_runs_is_not_ours(using: str) -> None:
    first, second = FifoJob.enqueue(using=using), FifoJob.enqueue(using=using)
    assert first.claim()
    run = execution.run(first)
    assert run.settle()
    assert in_another_thread(FifoJob.rows(using).get(pk=second.pk).claim)

    assert JobLaneFeed(FifoJob.rows(using), first.lane).hand_off_again(run) is None


def test_a_batch_that_was_never_committed_is_claimed_anew(using: str) -> None:
    FreeJob.enqueue_many([FreeJob() for _ in range(3)], using=using)
    feed = JobPoolFeed(FreeJob.rows(using), 3, Budget.endless())
    feed.tried = list(FreeJob.rows(using))
    for job in feed.tried:
        job.attempt += 1  # as after a lease that was rolled back
    with transaction.atomic(using=using):
        assert len(feed._lease_chosen_again(feed.choose)) == 3
    assert set(FreeJob.rows(using).values_list("status", "attempt")) == {("PROCESSING", 1)}


def test_an_outcome_is_not_recorded_that_somebody_else_has_written(using: str) -> None:
    job = FifoJob.enqueue(using=using)
    assert job.claim()
    run = execution.run(job)
    with virtual_clock() as clock:
        clock.advance(minutes=5)
        sweep.rescue(FifoJob, using)
        other = FifoJob.rows(using).get()
        assert other.claim()
        assert other.rest("PROCESSED")
    assert not run.settle_again()
    assert not run.is_recorded


def test_a_job_that_has_given_way_to_a_newer_one_with_its_key_knows_by_whom(using: str) -> None:
    job = FreeJob.enqueue(using=using, unique_key="nightly")
    assert job.claim()
    unheard = FreeJob.rows(using).get()
    newer = FreeJob.enqueue(using=using, unique_key="nightly")
    assert not job._has_come_back("NEW", {})
    assert unheard.put_back()
    assert job._has_come_back("NEW", {})
    assert (job.status, job.error_message) == ("SQUASHED", f"superseded by job {newer.pk}")
