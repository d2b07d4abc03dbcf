"""States, fields, class attributes, settings and exceptions."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from celery import Celery
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.utils import timezone

from parviraptor_celery import exceptions, signals
from parviraptor_celery.models import BackoffStrategy
from parviraptor_celery.schedule import beat_schedule
from parviraptor_celery.test import run_queue, virtual_clock
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.parviraptor.contract.common import (
    CLEAN,
    DISPATCH,
    QUEUES,
    RESTING,
    STATUSES,
    Kicked,
    eagerly,
    make_base_class,
    only,
    statuses,
)

pytestmark = pytest.mark.usefixtures("one_database")

CLASS_ATTRIBUTES: dict[str, Any] = {
    "BACKOFF_STRATEGY": BackoffStrategy.EXPONENTIAL,
    "BACKOFF_STEP_MINUTES": 2,
    "TEMPORARY_FAILURE_THRESHOLD": 19,
    "DEFERRED_RETRY_THRESHOLD": 19,
    "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS": 7,
    "MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN": 30,
    "MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN": 960,
}

INVALID: list[tuple[str, Any]] = [
    ("LEASE_SECONDS", 0),
    ("LEASE_SECONDS", "60"),
    ("DISPATCH_INTERVAL_SECONDS", -1),
    ("MAX_WORKER_DEATHS", 0),
    ("MAX_WORKER_DEATHS", 1.5),
    ("LEASE_SECOND", 60),  # unknown
]


def test_job_status() -> None:
    assert [status.name for status in FifoJob.Status] == STATUSES
    assert [status.value for status in FifoJob.Status] == STATUSES
    assert all(isinstance(status, str) for status in FifoJob.Status)


def test_the_fields_of_a_job(kicked: Kicked, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def process(job: Any) -> None:
        seen.append(only(FifoJob))
        if job.error_count == 0:
            job.raise_temporary_failure("away")

    monkeypatch.setattr(FifoJob, "process", process)
    new = FifoJob.objects.get(pk=FifoJob.enqueue().pk)
    assert (new.status, new.error_count, new.error_message, new.run_after) == ("NEW", 0, "", None)
    assert (new.attempt, new.lease_until, new.running_lane) == (0, None, None)
    assert abs(new.creation_date - new.modification_date) < timedelta(seconds=5)
    with virtual_clock() as clock:
        run_queue(FifoJob)
        back = only(FifoJob)
        clock.advance(minutes=3)
        run_queue(FifoJob)
    done = only(FifoJob)

    for running, attempt in zip(seen, (1, 2), strict=True):
        assert (running.status, running.attempt) == ("PROCESSING", attempt)
        assert running.running_lane == running.lane == new.lane
        assert running.lease_until > running.modification_date
    assert (back.status, back.error_count, back.error_message) == ("NEW", 1, "away")
    assert (back.running_lane, back.lease_until) == (None, None)
    assert back.run_after > back.modification_date >= new.modification_date
    assert (done.status, done.error_count, done.error_message) == ("PROCESSED", 1, "")
    assert (done.running_lane, done.lease_until, done.attempt) == (None, None, 2)
    assert done.creation_date == new.creation_date
    assert done.modification_date > back.modification_date + timedelta(minutes=2)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("status", RESTING)
def test_rows_may_be_inserted_in_any_resting_status(
    queue: Any, status: str, kicked: Kicked
) -> None:
    queue.objects.create(status=status, script="first")
    queue.objects.bulk_create([queue(status=status, script="second")])
    assert statuses(queue) == [status] * 2
    run_queue(queue)
    runs = status in ("NEW", "DEFERRED")
    assert statuses(queue) == (["PROCESSED"] if runs else [status]) * 2


def test_class_attributes(kicked: Kicked, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh: Any = make_base_class(None)
    assert {name: getattr(fresh, name) for name in CLASS_ATTRIBUTES} == CLASS_ATTRIBUTES
    assert [strategy.name for strategy in BackoffStrategy] == ["EXPONENTIAL", "CONSTANT"]

    monkeypatch.setattr(FifoJob, "BACKOFF_STRATEGY", BackoffStrategy.CONSTANT)
    monkeypatch.setattr(FifoJob, "BACKOFF_STEP_MINUTES", 0.25)
    monkeypatch.setattr(FifoJob, "TEMPORARY_FAILURE_THRESHOLD", 1)
    FifoJob.enqueue(script="temporary")
    with virtual_clock() as clock:
        run_queue(FifoJob)
        pause = only(FifoJob).run_after - only(FifoJob).modification_date
        assert timedelta(seconds=14) < pause < timedelta(seconds=16)
        clock.advance(seconds=16)
        run_queue(FifoJob)
    assert (only(FifoJob).status, only(FifoJob).error_count) == ("FAILED", 2)

    monkeypatch.setattr(LaneJob, "DEFERRED_RETRY_THRESHOLD", 1)
    LaneJob.enqueue(script="defer")
    for _ in range(2):
        run_queue(LaneJob)
    assert (only(LaneJob).status, only(LaneJob).error_count) == ("FAILED", 2)


@pytest.mark.parametrize(
    ("days", "left"), [(7, ["PROCESSED"]), (0.5, []), (None, ["PROCESSED", "PROCESSED"])]
)
def test_max_age_for_processed_jobs(
    celery_in_memory: Celery, monkeypatch: pytest.MonkeyPatch, days: float | None, left: list[str]
) -> None:
    monkeypatch.setattr(FreeJob, "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", days)
    for age in (1, 8):
        moment = timezone.now() - timedelta(days=age)
        FreeJob.objects.create(status="PROCESSED", modification_date=moment, creation_date=moment)
    with eagerly(celery_in_memory):
        celery_in_memory.tasks[CLEAN].delay()
    assert statuses(FreeJob) == left


def test_parviraptor_config(settings: Any, using: str, kicked: Kicked) -> None:
    def leased_for() -> timedelta:
        seen: list[timedelta] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FifoJob, "process", lambda job: seen.append(_lease_of(only(FifoJob))))
            FifoJob.enqueue()
            run_queue(FifoJob)
        FifoJob.objects.all().delete()
        return seen[0]

    assert abs(leased_for() - timedelta(seconds=60)) < timedelta(seconds=5)
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "LEASE_SECONDS": 600}
    assert abs(leased_for() - timedelta(seconds=600)) < timedelta(seconds=5)
    settings.PARVIRAPTOR_CONFIG = {"DISPATCH_INTERVAL_SECONDS": 7}
    assert beat_schedule()[DISPATCH]["schedule"] == 7
    for key, value in INVALID:
        settings.PARVIRAPTOR_CONFIG = {key: value}
        with pytest.raises(SystemCheckError, match=f"PARVIRAPTOR_CONFIG.*{key}"):
            call_command("check", stdout=StringIO())
    settings.PARVIRAPTOR_CONFIG = {
        "LEASE_SECONDS": 60,
        "DISPATCH_INTERVAL_SECONDS": 30,
        "MAX_WORKER_DEATHS": 3,
    }
    call_command("check", stdout=StringIO(), stderr=StringIO())


def _lease_of(job: Any) -> timedelta:
    lease: timedelta = job.lease_until - job.modification_date
    return lease


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    ("raised", "status", "errors"),
    [
        (exceptions.TemporaryJobFailure("said"), "NEW", 1),
        (exceptions.DeferJob("said"), "DEFERRED", 1),
        (exceptions.IgnoreJob("said"), "IGNORED", 0),
        (exceptions.InvalidJobError("said"), "FAILED", 0),
        (exceptions.UnprocessableJob("said"), "NEW", 0),
        (LookupError("said"), "FAILED", 0),
    ],
    ids=repr,
)
def test_exceptions(
    queue: Any,
    raised: Exception,
    status: str,
    errors: int,
    kicked: Kicked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[Any] = []

    def note(job: Any, **_: Any) -> None:
        left.append(only(queue))

    def process(job: Any) -> None:
        if not left:
            raise raised

    monkeypatch.setattr(queue, "process", process)
    queue.enqueue()
    signals.job_finished.connect(note)
    try:
        run_queue(queue)
    finally:
        signals.job_finished.disconnect(note)
    assert (left[0].status, left[0].error_count) == (status, errors)
    if not isinstance(raised, exceptions.UnprocessableJob):
        assert "said" in left[0].error_message
