"""What is wrong with a queue, counted and put into the promised words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from parviraptor_celery.monitoring import health, open_entries
from tests.testapp.models import FifoJob, FreeJob, LaneJob

pytestmark = pytest.mark.django_db


def minutes_ago(minutes: float) -> Any:
    return timezone.now() - timedelta(minutes=minutes)


def running(since: Any) -> FreeJob:
    lease = timezone.now() + timedelta(minutes=1)
    return FreeJob.objects.create(status="PROCESSING", lease_until=lease, modification_date=since)


def test_an_empty_queue_is_fine() -> None:
    assert health(FreeJob).is_fine


def test_the_sentence_is_as_promised() -> None:
    FreeJob.objects.create(status="FAILED")
    for _ in range(2):
        running(since=minutes_ago(31))
    for _ in range(3):
        FreeJob.objects.create(creation_date=minutes_ago(961))
    assert str(health(FreeJob)) == (
        "There are 1 failed, 2 long processing and 3 long unprocessed FreeJobs."
    )


@pytest.mark.parametrize(("minutes", "count"), [(29, 0), (31, 1)])
def test_a_job_is_long_processing_after_its_timeframe(minutes: float, count: int) -> None:
    running(since=minutes_ago(minutes))
    assert health(FreeJob).long_processing == count


@pytest.mark.parametrize(("minutes", "count"), [(959, 0), (961, 1)])
def test_a_job_is_long_unprocessed_after_its_timeframe(minutes: float, count: int) -> None:
    FreeJob.objects.create(creation_date=minutes_ago(minutes))
    assert health(FreeJob).long_unprocessed == count


def test_the_timeframes_are_those_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreeJob, "MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN", 0.5)
    monkeypatch.setattr(FreeJob, "MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN", 0.5)
    running(since=minutes_ago(1))
    FreeJob.objects.create(creation_date=minutes_ago(1))
    assert (health(FreeJob).long_processing, health(FreeJob).long_unprocessed) == (1, 1)


@pytest.mark.parametrize("status", ["PROCESSED", "SQUASHED", "IGNORED"])
def test_what_is_over_is_no_problem_however_old(status: str) -> None:
    old = minutes_ago(10_000)
    FreeJob.objects.create(status=status, creation_date=old, modification_date=old)
    assert health(FreeJob).is_fine


def test_a_heartbeat_does_not_make_a_long_job_look_young() -> None:
    job = running(since=minutes_ago(31))
    assert job.renew()
    assert health(FreeJob).long_processing == 1


def test_open_entries_are_counted_by_queue_and_state() -> None:
    for status in ("NEW", "NEW", "DEFERRED", "FAILED", "PROCESSED", "IGNORED", "SQUASHED"):
        LaneJob.objects.create(status=status)
    FifoJob.enqueue().claim()
    counts = {queue: dict(states) for queue, states in open_entries()}
    assert counts[LaneJob] == {"NEW": 2, "PROCESSING": 0, "DEFERRED": 1, "FAILED": 1}
    assert counts[FifoJob] == {"NEW": 0, "PROCESSING": 1, "DEFERRED": 0, "FAILED": 0}
    assert counts[FreeJob] == {"NEW": 0, "PROCESSING": 0, "DEFERRED": 0, "FAILED": 0}
