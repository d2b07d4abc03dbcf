"""The promises of the lanes, each with the interleaving that would break it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parviraptor_celery import dispatch, execution, sweep
from parviraptor_celery.conf import settings as queue_settings
from parviraptor_celery.dispatch import JobLaneFeed, kick_budget, run_lanes, run_pool
from parviraptor_celery.drains import Budget, Report, drain
from parviraptor_celery.exceptions import IllegalTransition
from parviraptor_celery.models import AbstractJob
from parviraptor_celery.states import JobStatus
from tests.integration.threads import at_once
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob, Note


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def fifo(using: str, count: int, **fields: Any) -> list[FifoJob]:
    jobs = [FifoJob(**fields) for _ in range(count)]
    FifoJob.enqueue_many(jobs, using=using)
    return list(FifoJob.objects.using(using).order_by("id"))


def statuses(queue: type[AbstractJob], using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))


def expire(job: AbstractJob) -> None:
    """Let the lease of a job run out."""
    past = timezone.now() - timedelta(minutes=1)
    type(job).rows(job.alias).filter(pk=job.pk).update(lease_until=past)


def test_a_lane_runs_one_job_at_a_time_even_if_the_looks_were_stale(using: str) -> None:
    first, second = fifo(using, 2)
    feed = JobLaneFeed(FifoJob.rows(using), first.lane)
    seen_while_the_lane_was_free = FifoJob.rows(using).candidate(first.lane, JobStatus.NEW)
    assert not seen_while_the_lane_was_free.lane_is_running

    second.claim()  # a lower id can commit later than a higher one, so this may happen

    assert feed._claim_alone(seen_while_the_lane_was_free) is False
    assert statuses(FifoJob, using) == ["NEW", "PROCESSING"]


def test_a_worker_that_slept_through_its_lease_records_nothing(using: str) -> None:
    (job,) = fifo(using, 1)
    assert job.claim()
    run = execution.run(job)
    expire(job)
    assert sweep.rescue(FifoJob, using) == 1
    other = FifoJob.rows(using).get()
    assert other.claim()

    assert run.settle() is False

    now = FifoJob.rows(using).get()
    assert (now.status, now.attempt, now.result) == ("PROCESSING", 2, None)


def test_saving_a_running_job_after_its_lease_was_lost_is_refused(using: str) -> None:
    from parviraptor_celery.exceptions import LeaseLost

    (job,) = fifo(using, 1)
    assert job.claim()
    FifoJob.rows(using).update(attempt=7)
    with execution._running_here(job, {}), pytest.raises(LeaseLost):
        job.save()


def test_a_job_enqueued_between_the_last_look_and_the_commit_is_not_stranded(using: str) -> None:
    (job,) = fifo(using, 1)

    class Feed(JobLaneFeed):
        late = 0

        def hand_off(self, run: Any) -> Any:
            found = super().hand_off(run)
            if found is None and not self.late:
                self.late = FifoJob.enqueue(using=using).pk  # its kick saw the lane running
            return found

    drain(Feed(FifoJob.rows(using), job.lane), kick_budget(), Report())

    assert statuses(FifoJob, using) == ["PROCESSED", "PROCESSED"]


def test_jobs_of_a_lane_run_in_order_and_never_overlap_under_many_workers(using: str) -> None:
    running: set[int] = set()
    guard, overlaps, order = threading.Lock(), list[int](), list[int]()

    def process(self: LaneJob) -> None:
        with guard:
            overlaps.extend([self.pk] if self.number in running else [])
            running.add(self.number)
            order.append(self.pk)
        with guard:
            running.discard(self.number)

    jobs = [LaneJob(number=at % 3) for at in range(60)]
    LaneJob.enqueue_many(jobs, using=using)
    lanes = sorted(set(LaneJob.rows(using).values_list("lane", flat=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LaneJob, "process", process)
        at_once(*[lambda: run_lanes(LaneJob, using, lanes, Budget.endless())] * 4)

    assert set(statuses(LaneJob, using)) == {"PROCESSED"}
    assert overlaps == []
    assert len(order) == 60
    number = dict(LaneJob.rows(using).values_list("id", "number"))
    for lane in range(3):
        ran = [pk for pk in order if number[pk] == lane]
        assert ran == sorted(ran)


def test_independent_jobs_are_run_once_each_by_many_workers(using: str) -> None:
    FreeJob.enqueue_many([FreeJob() for _ in range(60)], using=using)

    at_once(*[lambda: run_pool(FreeJob, using, Budget.endless())] * 4)

    assert set(statuses(FreeJob, using)) == {"PROCESSED"}
    assert Note.objects.using(using).count() == 60


def test_a_hand_off_and_a_competing_kick_do_not_deadlock(using: str) -> None:
    jobs = fifo(using, 40)
    lanes = [jobs[0].lane]

    at_once(*[lambda: run_lanes(FifoJob, using, lanes, Budget.endless())] * 3)

    assert set(statuses(FifoJob, using)) == {"PROCESSED"}
    assert Note.objects.using(using).count() == 40


def test_a_job_that_was_put_back_waits_by_the_clock_of_the_database(using: str) -> None:
    (job,) = fifo(using, 1, script="temporary not yet")
    run_lanes(FifoJob, using, [job.lane], kick_budget())

    job.refresh_from_db()
    waits = (job.run_after - timezone.now()).total_seconds()
    assert (job.status, job.error_count) == ("NEW", 1)
    assert waits == pytest.approx(FifoJob.BACKOFF_STEP_MINUTES * 60, abs=20)
    assert run_lanes(FifoJob, using, [job.lane], kick_budget()).rows == 0


def test_a_lease_ends_by_the_clock_of_the_database(using: str, settings: Any) -> None:
    (job,) = fifo(using, 1)
    assert job.claim()
    assert not FifoJob.rows(using).expired().exists()
    lease = (FifoJob.rows(using).get().lease_until - timezone.now()).total_seconds()
    assert lease == pytest.approx(queue_settings.LEASE_SECONDS, abs=20)

    expire(job)

    assert FifoJob.rows(using).expired().get().pk == job.pk


def test_a_job_that_keeps_killing_its_workers_fails(using: str) -> None:
    (job,) = fifo(using, 1)
    for deaths in (1, 2, 3):
        dying = FifoJob.rows(using).get()
        assert dying.claim()
        expire(dying)
        sweep.rescue(FifoJob, using)
        assert FifoJob.rows(using).get().worker_deaths == deaths
    job.refresh_from_db()
    assert job.status == "FAILED"
    assert "died 3 times" in job.error_message


def test_jobs_that_were_claimed_and_not_begun_pay_nothing_for_a_dead_worker(using: str) -> None:
    FreeJob.enqueue_many([FreeJob() for _ in range(3)], using=using)
    feed = dispatch.JobPoolFeed(FreeJob.rows(using), 3, Budget.endless())
    assert feed.first() is not None  # one has begun, two are only leased
    for job in FreeJob.rows(using):
        expire(job)

    sweep.rescue(FreeJob, using)

    deaths = FreeJob.rows(using).order_by("id").values_list("worker_deaths", flat=True)
    assert list(deaths) == [1, 0, 0]
    assert statuses(FreeJob, using) == ["NEW", "NEW", "NEW"]


def test_the_body_of_an_atomic_job_is_undone_when_its_lease_was_lost(using: str) -> None:
    AtomicJob.enqueue(using=using)
    job = AtomicJob.rows(using).get()
    assert job.claim()
    AtomicJob.rows(using).update(attempt=7)  # somebody else has it now

    run = execution.run(job)

    assert run.is_recorded is False
    assert not Note.objects.using(using).exists()


def test_the_body_of_an_atomic_job_and_its_completion_are_one_transaction(using: str) -> None:
    job = AtomicJob.enqueue(using=using, script="fail in the end")
    run_lanes(AtomicJob, using, [job.lane], kick_budget())

    assert not Note.objects.using(using).exists()
    assert statuses(AtomicJob, using) == ["FAILED"]


def test_the_database_itself_refuses_a_second_running_job_of_a_lane(using: str) -> None:
    from django.db import IntegrityError

    first, second = fifo(using, 2)
    assert first.claim()
    with pytest.raises(IntegrityError):
        second.claim()


def test_the_head_of_a_long_lane_is_found_through_the_index_of_the_lane(using: str) -> None:
    plan = _plan_of_the_head(using)
    assert "_sti" in plan, plan


def _plan_of_the_head(using: str) -> str:
    FifoJob.rows(using).bulk_create([FifoJob() for _ in range(3000)])
    with connections[using].cursor() as cursor:
        if connections[using].vendor != "sqlite":
            analyze = "ANALYZE TABLE" if connections[using].vendor == "mysql" else "ANALYZE"
            cursor.execute(f"{analyze} {FifoJob._meta.db_table}")
            if connections[using].vendor == "mysql":
                cursor.fetchall()
    lane = FifoJob.rows(using).values_list("lane", flat=True)[0]
    return str(FifoJob.rows(using).waiting_in(lane)[:1].explain())


@pytest.fixture(autouse=True)
def _threads_are_gone() -> Iterator[None]:
    yield
    assert not [t for t in threading.enumerate() if "ThreadPoolExecutor" in t.name]


@pytest.mark.parametrize("way", ["save", "save some", "update"])
def test_a_status_that_is_set_by_hand_is_the_last_transition(using: str, way: str) -> None:
    """The cleaner goes by it: what was set aside by hand is not old at once."""
    long_ago = timezone.now() - timedelta(days=30)
    job = LaneJob.enqueue(using=using)
    LaneJob.rows(using).filter(pk=job.pk).update(modification_date=long_ago)
    job = LaneJob.rows(using).get(pk=job.pk)
    if way == "update":
        LaneJob.rows(using).filter(pk=job.pk).update(status="PROCESSED")
    else:
        job.status = "PROCESSED"
        job.save(**({} if way == "save" else {"update_fields": ["status"]}))
    job.refresh_from_db()
    assert job.status == "PROCESSED"
    assert timezone.now() - job.modification_date < timedelta(minutes=5)
    job.save()
    LaneJob.rows(using).filter(pk=job.pk).update(status="FAILED", modification_date=long_ago)
    assert LaneJob.rows(using).get(pk=job.pk).modification_date.date() == long_ago.date()


def test_a_status_that_changed_meanwhile_is_not_overwritten_by_hand(using: str) -> None:
    """Two people look at a failed job; what one of them retried, the other would run again."""
    failed = LaneJob.rows(using).create(status="FAILED")
    first, second = (LaneJob.rows(using).get(pk=failed.pk) for _ in range(2))
    first.status = "NEW"
    first.save()
    run_lanes(LaneJob, using, [failed.lane], kick_budget())
    second.status = "NEW"
    with pytest.raises(IllegalTransition, match="was FAILED when it was read and is PROCESSED now"):
        second.save()
    assert LaneJob.rows(using).get(pk=failed.pk).status == "PROCESSED"


def test_saving_no_columns_writes_nothing(using: str) -> None:
    job = LaneJob.enqueue(using=using)
    with CaptureQueriesContext(connections[using]) as queries:
        job.save(update_fields=[])
    assert list(queries) == []


def test_what_a_refused_bulk_left_out_gets_the_lane_of_its_values(using: str) -> None:
    there = LaneJob.enqueue(using=using, shop="there")
    twin, left_out = LaneJob(pk=there.pk, shop="a"), LaneJob(shop="a")
    with pytest.raises(IntegrityError), transaction.atomic(using=using):
        LaneJob.rows(using).bulk_create([twin, left_out], batch_size=1)
    left_out.shop = "there"
    left_out.pk = None
    left_out.save(using=using)
    assert LaneJob.rows(using).get(pk=left_out.pk).lane == there.lane
