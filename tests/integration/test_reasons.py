"""``why()``: each answer, from rows as they come about, and what the question costs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parviraptor_celery import kicks
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from parviraptor_celery.models import FailurePolicy
from parviraptor_celery.reasons import Reason, why
from tests.testapp.models import FifoJob, FreeJob, HoldJob, LaneJob, SquashJob
from tests.unit.conftest import using_celery

HOUR = timedelta(hours=1)
MOST_QUERIES = 5


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def asked(job: Any, code: str, *words: str, about: int | None = None) -> Reason:
    """Ask why, and assert what the answer says and what it cost."""
    job.why()  # whether the table of pauses is there is looked for once
    with CaptureQueriesContext(connections[job.alias]) as queries:
        reason = why(job)
    assert (reason.code, reason.job_id) == (code, about), str(reason)
    for word in words:
        assert word in str(reason)
    assert len(queries) <= MOST_QUERIES
    return reason


def fifo(using: str, *jobs: FifoJob) -> list[Any]:
    FifoJob.enqueue_many(jobs or [FifoJob(), FifoJob()], using=using)
    return list(FifoJob.rows(using).order_by("id"))


def run(job: Any) -> None:
    run_lanes(type(job), job.alias, [job.lane], Budget(rows=1, seconds=60))


def test_a_job_that_is_ready(using: str) -> None:
    asked(FreeJob.enqueue(using=using), "ready", "the next free worker takes it")
    asked(FifoJob.enqueue(using=using), "ready")


def test_a_job_that_is_due_later(using: str) -> None:
    due = timezone.now() + HOUR
    text = due.strftime("%Y-%m-%d %H:%M:%S UTC")
    asked(FreeJob.enqueue(using=using, run_after=due), "due-later", f"due at {text}.")
    job = FifoJob.enqueue(using=using, script="temporary away")
    run(job)
    asked(job, "due-later", "after 1 failed attempt: away")


def test_a_job_behind_one_that_waits(using: str) -> None:
    first, second = fifo(using)
    asked(second, "behind", f"job {first.pk} of its lane, which waits too", about=first.pk)


def test_a_job_behind_one_that_is_due_later(using: str) -> None:
    first, second = fifo(using, FifoJob(script="temporary away"), FifoJob())
    run(first)
    asked(second, "behind", f"job {first.pk}", "is due at", "failed attempt: away", about=first.pk)


def test_a_job_behind_one_that_runs(using: str) -> None:
    first, second = fifo(using)
    first.claim()
    held_by = FifoJob.rows(using).get(pk=first.pk).leased_by
    asked(second, "behind", f"job {first.pk}", f"leased by {held_by} until", about=first.pk)
    asked(first, "running", "It has been running since", held_by)
    FifoJob.rows(using).filter(pk=first.pk).update(lease_until=timezone.now() - HOUR)
    asked(second, "behind", "That lease ran out", about=first.pk)


def test_a_job_that_is_leased_and_has_not_begun(using: str) -> None:
    lease = timezone.now() + HOUR
    job = FreeJob.rows(using).create(status="PROCESSING", lease_until=lease, leased_by="w1")
    asked(job, "leased", "leased by w1")


def test_a_job_whose_worker_died(using: str) -> None:
    (job, _) = fifo(using)
    job.claim()
    FifoJob.rows(using).filter(pk=job.pk).update(lease_until=timezone.now() - HOUR)
    asked(job, "lease-ran-out", "The next sweep gives the job back")


def test_a_paused_queue_and_a_paused_lane(using: str) -> None:
    job = LaneJob.enqueue(using=using)
    job.pause_lane("look first")
    asked(job, "paused-lane", "Its lane has been paused since", ": look first")
    LaneJob.pause(using=using, reason="all of it")
    asked(job, "paused-queue", "Its queue has been paused since", ": all of it")
    free = FreeJob.enqueue(using=using)
    FreeJob.pause(using=using)
    asked(free, "paused-queue")


def test_a_job_behind_one_that_failed(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cause, dependent = fifo(using, FifoJob(script="fail x"), FifoJob())
    run(cause)
    asked(cause, "failed", "in attempt 1. Retry it or ignore it. Its error: x")
    asked(dependent, "about-to-fail", f"Job {cause.pk} before it failed", about=cause.pk)
    monkeypatch.setattr(FifoJob, "FAILURE_POLICY", FailurePolicy.HOLD_LANE)
    asked(dependent, "held", f"Job {cause.pk} before it failed, and holds", about=cause.pk)
    monkeypatch.setattr(FifoJob, "FAILURE_POLICY", FailurePolicy.GO_ON)
    asked(dependent, "ready")


def test_a_job_that_failed_with_its_cause(using: str) -> None:
    cause, dependent = fifo(using, FifoJob(status="FAILED"), FifoJob())
    run(dependent)
    asked(dependent, "failed-with-cause", f"job {cause.pk}", "is FAILED now", about=cause.pk)
    cause.ignore()
    asked(dependent, "failed-with-cause", "is IGNORED now. Retry this one", about=cause.pk)
    cause_id = cause.pk
    cause.delete()
    asked(dependent, "failed-with-cause", "is deleted. Retry this one", about=cause_id)


def test_a_job_that_a_newer_one_is_about_to_squash(using: str) -> None:
    SquashJob.enqueue_many([SquashJob(), SquashJob(status="DEFERRED"), SquashJob()], using=using)
    first, deferred, newest = SquashJob.rows(using).order_by("id")
    later = SquashJob.enqueue(using=using, run_after=HOUR)
    told = f"Job {newest.pk} of its lane is newer"
    asked(first, "about-to-be-squashed", told, about=newest.pk)
    asked(deferred, "about-to-be-squashed", told, about=newest.pk)
    asked(newest, "ready")
    asked(later, "behind", f"job {newest.pk}", about=newest.pk)


def test_a_deferred_job_before_a_failed_one_waits_for_none_behind_that(using: str) -> None:
    HoldJob.enqueue_many(
        [HoldJob(status="DEFERRED"), HoldJob(status="FAILED"), HoldJob()], using=using
    )
    deferred, failed, held = HoldJob.rows(using).order_by("id")
    asked(held, "held", about=failed.pk)
    asked(deferred, "ready")


def test_a_deferred_independent_job_names_the_one_that_is_next(using: str) -> None:
    jobs = [FreeJob(status="DEFERRED"), FreeJob(), FreeJob(priority=1, run_after=timezone.now())]
    FreeJob.enqueue_many(jobs, using=using)
    deferred, _, urgent = FreeJob.rows(using).order_by("id")
    asked(deferred, "deferred", about=urgent.pk)


def test_a_deferred_job(using: str) -> None:
    deferred, other = fifo(using, FifoJob(status="DEFERRED"), FifoJob())
    asked(deferred, "deferred", f"job {other.pk} is", about=other.pk)
    other.cancel()
    asked(deferred, "ready")
    later = FifoJob.rows(using).create(status="DEFERRED")
    asked(later, "behind", f"job {deferred.pk}", about=deferred.pk)
    pooled, ready = FreeJob.rows(using).create(status="DEFERRED"), FreeJob.enqueue(using=using)
    asked(pooled, "deferred", about=ready.pk)
    run_pool(FreeJob, using, Budget.endless())
    asked(pooled, "processed", "It was processed at")


def test_a_job_that_is_over(using: str) -> None:
    for status, code in (("SQUASHED", "squashed"), ("IGNORED", "ignored")):
        asked(FreeJob.rows(using).create(status=status), code, "never runs")
    ignored = FreeJob.enqueue(using=using, script="ignore no need")
    run_pool(FreeJob, using, Budget.endless())
    asked(ignored, "ignored", ": no need")
    FreeJob.rows(using).all().delete()
    asked(ignored, "gone", "deleted")


def test_a_job_without_a_lane(using: str) -> None:
    job = FifoJob.enqueue(using=using)
    FifoJob.rows(using).update(lane=None)
    asked(job, "no-lane", "the next sweep gives it one")


def test_a_long_message_is_cut_short(using: str) -> None:
    job = FreeJob.rows(using).create(status="FAILED", error_message="x\n" * 1000)
    assert len(str(why(job))) < 500


def test_the_answer_is_about_the_row_and_not_the_object(using: str) -> None:
    job = FifoJob.enqueue(using=using)
    FifoJob.rows(using).get().cancel()
    assert job.status == "NEW"
    asked(job, "ignored")


# Who consumes its queue


@pytest.mark.django_db(transaction=True)
class TestAskingTheWorkers:
    @pytest.fixture
    def app(self, broker_url: str, queue_name: str) -> Any:
        app = Celery(queue_name, broker=broker_url, set_as_current=False)
        app.conf.task_default_queue = queue_name
        app.conf.task_queue_max_priority = None
        app.conf.worker_hijack_root_logger = False
        with using_celery(app):
            yield app
            with app.connection_for_write() as connection:
                app.amqp.queues[queue_name](connection.default_channel).delete()

    def test_that_no_worker_consumes_its_queue_is_said(self, app: Any, queue_name: str) -> None:
        job = FreeJob.enqueue()
        assert job.why().code == "ready"
        reason = job.why(ask_workers=True)
        assert (reason.code, f"the Celery queue {queue_name!r}" in str(reason)) == (
            "no-worker",
            True,
        )

    def test_a_worker_counts_if_it_consumes_what_the_kicks_are_routed_to(self, app: Any) -> None:
        def route(name: str, args: Any, kwargs: Any, *_: Any, **__: Any) -> Any:
            is_ours = name == kicks.PROCESS and kwargs["queue"] == "testapp.FreeJob"
            return {"queue": "elsewhere"} if is_ours else None

        app.conf.task_routes = (route,)
        with start_worker(app, loglevel="WARNING", perform_ping_check=False, shutdown_timeout=20):
            free = FreeJob.rows("default").create().why(ask_workers=True)
            fifo = FifoJob.rows("default").create().why(ask_workers=True)
        assert (free.code, "'elsewhere'" in str(free), fifo.code) == ("no-worker", True, "ready")

    def test_workers_are_not_asked_about_what_can_not_run(self, app: Any) -> None:
        FreeJob.pause()
        assert FreeJob.enqueue().why(ask_workers=True).code == "paused-queue"


@pytest.mark.django_db
def test_that_the_broker_is_away_is_said() -> None:
    app = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    with using_celery(app):
        reason = FreeJob.rows("default").create().why(ask_workers=True)
    assert (reason.code, "process_queue" in str(reason)) == ("broker-away", True)


@pytest.mark.django_db
def test_under_task_always_eager_nobody_is_asked() -> None:
    app = Celery("eager", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.task_always_eager = True
    with using_celery(app):
        assert FreeJob.rows("default").create().why(ask_workers=True).code == "ready"
