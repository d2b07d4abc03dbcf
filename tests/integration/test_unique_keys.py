"""Unique keys: of the jobs with one key that would wait, the newest waits, on every way back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parviraptor_celery import signals, sweep
from parviraptor_celery.dispatch import JobPoolFeed, run_lanes, run_pool
from parviraptor_celery.drains import Budget
from parviraptor_celery.exceptions import DuplicateUniqueKey
from tests.integration.test_lane_races import in_a_thread, let_them_meet
from tests.integration.threads import open_transaction
from tests.testapp.models import FifoJob, FreeJob, GoOnJob
from tests.unit.jobs import received

KEY = "nightly"
CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def keyed(using: str, queue: Any = FreeJob, **columns: Any) -> Any:
    job = queue.enqueue(using=using, unique_key=KEY, **columns)
    return queue.rows(using).get(pk=job.pk)


def running(using: str, queue: Any = FreeJob, **columns: Any) -> Any:
    job = keyed(using, queue, **columns)
    assert job.claim()
    return job


def failed(using: str, queue: Any = FreeJob) -> Any:
    """Return a failed job, whose key is free."""
    job = running(using, queue)
    assert job.rest("FAILED")
    return job


def seen(job: Any) -> tuple[str, str | None, str]:
    """Return status, waiting_key and message, as the database has them."""
    row = type(job).rows(job.alias).get(pk=job.pk)
    assert row.unique_key == KEY, "the key stays with the job for its whole life"
    return row.status, row.waiting_key, row.error_message


def superseded_by(job: Any) -> tuple[str, None, str]:
    return "SQUASHED", None, f"superseded by job {job.pk}"


def expire_and_rescue(job: Any) -> None:
    past = timezone.now() - timedelta(minutes=5)
    type(job).rows(job.alias).filter(pk=job.pk).update(lease_until=past)
    assert sweep.rescue(type(job), job.alias) == 1


WAYS_BACK = pytest.mark.parametrize(
    ("way", "status"),
    [
        pytest.param(lambda job: job.put_back(), "NEW", id="put back"),
        pytest.param(lambda job: job.rest("DEFERRED"), "DEFERRED", id="deferred"),
        pytest.param(lambda job: job.update_job_for_being_resumed(), "NEW", id="handed back"),
        pytest.param(expire_and_rescue, "NEW", id="rescued"),
    ],
)


@WAYS_BACK
def test_a_job_that_waits_again_has_its_key_again(using: str, way: Any, status: str) -> None:
    job = running(using)
    assert seen(job) == ("PROCESSING", None, "")
    way(job)
    assert seen(job) == (status, KEY, "")
    with pytest.raises(DuplicateUniqueKey):
        keyed(using)


@WAYS_BACK
def test_a_job_that_would_wait_again_while_a_newer_one_waits_is_superseded(
    using: str, way: Any, status: str
) -> None:
    job = running(using)
    newer = keyed(using)
    way(job)
    assert seen(job) == superseded_by(newer)
    assert seen(newer) == ("NEW", KEY, "")
    row = FreeJob.rows(using).get(pk=job.pk)
    assert (row.lease_until, row.leased_by, row.run_after) == (None, "", None)


@WAYS_BACK
def test_a_job_that_waits_again_supersedes_an_older_one_that_waits(
    using: str, way: Any, status: str
) -> None:
    older = running(using)
    newer = running(using)
    older.put_back()
    way(newer)
    assert seen(older) == superseded_by(newer)
    assert seen(newer) == (status, KEY, "")


def test_a_worker_that_lost_its_lease_supersedes_nobody(using: str) -> None:
    older, newer = running(using), running(using)
    older.put_back()
    FreeJob.rows(using).filter(pk=newer.pk).update(attempt=9)
    assert newer.put_back() is False
    assert seen(older) == ("NEW", KEY, "")


@pytest.mark.parametrize("script", ["temporary away", "defer later", "unprocessable closed"])
@pytest.mark.parametrize("queue", [FreeJob, FifoJob])
def test_an_outcome_that_would_put_a_superseded_job_back_ends_it(
    using: str, queue: Any, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = queue.process

    def enqueue_newer(self: Any) -> None:
        if self.script:
            keyed(using, queue)
        process(self)

    monkeypatch.setattr(queue, "process", enqueue_newer)
    job = keyed(using, queue, script=script)
    with received(signals.job_finished) as told:
        report = (
            run_pool(queue, using, Budget.endless())
            if job.lane is None
            else run_lanes(queue, using, [job.lane], Budget.endless())
        )
    newer = queue.rows(using).order_by("id").last()
    assert seen(job) == superseded_by(newer)
    assert seen(newer)[0] == "PROCESSED"
    assert report.pauses == {}, "nothing comes back later"
    assert [type(sent["outcome"]).__name__ for sent in told] == ["Superseded", "Processed"]


def test_rows_that_were_leased_and_not_begun_are_given_back_with_their_key(using: str) -> None:
    FreeJob.enqueue(using=using)
    job = keyed(using)
    feed = JobPoolFeed(FreeJob.rows(using), 2, Budget(rows=2, seconds=60))
    feed.pace.next_batch = lambda: 2  # type: ignore[method-assign]
    assert feed.first() is not None
    assert seen(job) == ("PROCESSING", None, "")
    feed.close()
    assert seen(job) == ("NEW", KEY, "")


# Retry


def test_a_retry_of_a_job_whose_key_is_taken_is_refused_and_names_the_other(using: str) -> None:
    job = failed(using)
    waiting = keyed(using)
    with transaction.atomic(using=using):
        with pytest.raises(DuplicateUniqueKey, match=f"job {waiting.pk}.*'nightly'"):
            job.retry()
        FreeJob.enqueue(using=using)  # the transaction goes on
    assert (seen(job)[0], seen(waiting)[0]) == ("FAILED", "NEW")
    assert job.status == "FAILED"


def test_a_retried_job_has_its_key_again(using: str) -> None:
    job = failed(using)
    assert job.retry() == 1
    assert seen(job) == ("NEW", KEY, "")


def test_of_dependents_with_one_key_the_newest_comes_back(using: str) -> None:
    FifoJob.enqueue(using=using, script="fail")
    lane = FifoJob.rows(using).get().lane

    def fail_all() -> None:
        run_lanes(FifoJob, using, [lane], Budget.endless())

    fail_all()
    dependents = []
    for _ in range(3):
        dependents.append(keyed(using, FifoJob))  # the key is free again each time
        fail_all()
    FifoJob.enqueue(using=using)
    fail_all()
    cause = FifoJob.rows(using).order_by("id")[0]

    assert cause.retry() == 3, "the cause, the newest of the key, and one without a key"
    first, second, newest = dependents
    assert seen(newest) == ("NEW", KEY, "")
    assert seen(first) == seen(second) == superseded_by(newest)


def test_a_dependent_whose_key_a_newer_job_has_meanwhile_is_superseded(using: str) -> None:
    FifoJob.enqueue(using=using, script="fail")
    lane = FifoJob.rows(using).get().lane
    run_lanes(FifoJob, using, [lane], Budget.endless())
    dependent = keyed(using, FifoJob)
    run_lanes(FifoJob, using, [lane], Budget.endless())
    newer = keyed(using, FifoJob)

    FifoJob.rows(using).order_by("id")[0].retry()
    assert seen(dependent) == superseded_by(newer)
    assert seen(newer)[0] == "NEW"


# By hand


def test_a_status_set_by_hand_takes_the_key_along(using: str) -> None:
    job = failed(using)
    job = FreeJob.rows(using).get(pk=job.pk)
    job.status = "NEW"
    job.save()
    assert seen(job)[:2] == ("NEW", KEY)
    job.status = "IGNORED"
    job.save()
    assert seen(job)[:2] == ("IGNORED", None)
    FreeJob.rows(using).filter(pk=job.pk).update(status="NEW")
    assert seen(job)[:2] == ("NEW", KEY)
    FreeJob.rows(using).filter(pk=job.pk).update(status="FAILED")
    assert seen(job)[:2] == ("FAILED", None)


def test_a_status_set_by_hand_is_refused_while_another_has_the_key(using: str) -> None:
    job = failed(using)
    waiting = keyed(using)
    job = FreeJob.rows(using).get(pk=job.pk)
    job.status = "NEW"
    with transaction.atomic(using=using):
        with pytest.raises(DuplicateUniqueKey, match=f"job {waiting.pk}"):
            job.save()
        FreeJob.enqueue(using=using)
    assert seen(job)[0] == "FAILED"


def test_saving_a_stale_object_leaves_the_key_as_it_is(using: str) -> None:
    stale = keyed(using)
    newer = FreeJob.rows(using).get(pk=stale.pk)
    assert newer.claim()
    assert newer.rest("PROCESSED")
    stale.result = 7
    stale.save()
    assert seen(stale)[:2] == ("PROCESSED", None)


@pytest.mark.parametrize("status", ["FAILED", "IGNORED", "SQUASHED"])
def test_a_waiting_job_that_is_set_aside_frees_its_key(using: str, status: str) -> None:
    job = keyed(using)
    assert job.move(status)
    assert seen(job)[:2] == (status, None)
    keyed(using)


def test_jobs_that_are_inserted_together_may_not_share_a_key(using: str) -> None:
    keyed(using)
    with transaction.atomic(using=using):
        with pytest.raises(DuplicateUniqueKey, match="'nightly'"):
            FreeJob.enqueue_many([FreeJob(), FreeJob(unique_key=KEY)], using=using)
        twins = [FreeJob(unique_key="weekly"), FreeJob(unique_key="weekly")]
        with pytest.raises(DuplicateUniqueKey, match="'weekly'"):
            FreeJob.enqueue_many(twins, using=using)
        FreeJob.enqueue(using=using)
    assert FreeJob.rows(using).count() == 2


# Races, and what it costs


@CONCURRENT
def test_a_job_that_is_enqueued_while_an_older_one_is_put_back_waits(using: str) -> None:
    job = running(using)
    with (
        open_transaction(using, lambda: keyed(using)) as enqueuing,
        in_a_thread(lambda: job.put_back()) as putting_back,
    ):
        let_them_meet(putting_back, using)
        assert not putting_back.done(), "it waits for the key"
        enqueuing.committed()
    newer = FreeJob.rows(using).order_by("id").last()
    assert seen(job) == superseded_by(newer)
    assert seen(newer)[0] == "NEW"


@CONCURRENT
def test_the_same_in_a_transaction_leaves_that_one_usable(using: str) -> None:
    job = running(using)

    def put_back() -> None:
        with transaction.atomic(using=using):
            GoOnJob.enqueue(using=using)
            assert job.put_back()
            GoOnJob.enqueue(using=using)

    with (
        open_transaction(using, lambda: keyed(using)) as enqueuing,
        in_a_thread(put_back) as putting_back,
    ):
        let_them_meet(putting_back, using)
        enqueuing.committed()
    assert seen(job)[0] == "SQUASHED"
    assert GoOnJob.rows(using).count() == 2


@CONCURRENT
def test_a_retry_that_meets_a_newcomer_with_its_key_is_refused(using: str) -> None:
    job = failed(using)
    refused: list[str] = []

    def retry() -> None:
        try:
            job.retry()
        except DuplicateUniqueKey as error:
            refused.append(str(error))

    with (
        open_transaction(using, lambda: keyed(using)) as enqueuing,
        in_a_thread(retry) as retrying,
    ):
        let_them_meet(retrying, using)
        enqueuing.committed()
    assert len(refused) == 1
    assert (seen(job)[0], job.status) == ("FAILED", "FAILED")


def test_jobs_without_a_key_pay_nothing(using: str) -> None:
    FreeJob.enqueue(using=using)
    job = FreeJob.rows(using).get()
    assert job.claim()
    with CaptureQueriesContext(connections[using]) as queries:
        job.put_back()
    assert [query["sql"].split()[0] for query in queries] == ["UPDATE"]
    assert "waiting_key" not in queries[0]["sql"]
