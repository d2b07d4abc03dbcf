"""What becomes of a job, by what its body does, on each kind of database."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.signals import post_save, pre_save

from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from parviraptor_celery.exceptions import TemporaryJobFailure
from parviraptor_celery.foreground import ForegroundWorker
from parviraptor_celery.pool_feed import MOST_UNPROCESSABLE
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.jobs import received

QUEUES = pytest.mark.parametrize("queue", [FreeJob, LaneJob])
A_MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def run_one(queue: Any, using: str) -> Any:
    """Run one job of the queue, and return the first as it is then."""
    return work_off(queue, using, Budget(rows=1, seconds=60))


def work_off(queue: Any, using: str, budget: Budget | None = None) -> Any:
    budget = budget or Budget.endless()
    if queue.dependent_fields is None:
        run_pool(queue, using, budget)
    else:
        lanes = sorted(set(queue.rows(using).values_list("lane", flat=True)))
        run_lanes(queue, using, lanes, budget)
    return queue.rows(using).order_by("id")[0]


def pause_of(row: Any) -> timedelta:
    pause: timedelta = row.run_after - row.modification_date
    return pause


@QUEUES
@pytest.mark.parametrize(
    ("script", "status", "error_count", "message"),
    [
        ("", "PROCESSED", 0, ""),
        ("fail no stock", "FAILED", 0, "no stock"),
        ("invalid no such shop", "FAILED", 0, "no such shop"),
        ("ignore too late", "IGNORED", 0, "too late"),
        ("defer not yet", "DEFERRED", 1, "not yet"),
        ("unprocessable closed", "NEW", 0, ""),
        ("temporary away", "NEW", 1, "away"),
    ],
)
def test_an_outcome_is_written_with_count_message_and_own_fields(
    using: str, queue: Any, script: str, status: str, error_count: int, message: str
) -> None:
    queue.enqueue(using=using, script=script)
    row = run_one(queue, using)
    assert (row.status, row.error_count, row.error_message) == (status, error_count, message)
    assert (row.result, row.attempt) == (1, 1)
    assert (row.lease_until, row.running_lane, row.leased_by) == (None, None, "")
    assert ("ValueError" in row.error_traceback) == (script.startswith("fail"))


@QUEUES
def test_no_transition_sends_the_signals_of_a_save(using: str, queue: Any) -> None:
    queue.enqueue(using=using)
    with received(pre_save) as before, received(post_save) as after:
        assert run_one(queue, using).status == "PROCESSED"
    assert [told for told in before + after if told["sender"] is queue] == []


@pytest.mark.parametrize(
    ("queue", "pauses"), [(LaneJob, [1, 2, 4, 8, 16, 32, 32]), (FifoJob, [2, 2, 2])]
)
def test_temporary_failures_pause_by_the_strategy(
    using: str, queue: Any, pauses: list[int]
) -> None:
    queue.enqueue(using=using, script="temporary away")
    found = []
    for _ in pauses:
        found.append(round(pause_of(run_one(queue, using)) / A_MINUTE, 3))
        queue.rows(using).update(run_after=None)
    assert found == pauses


@pytest.mark.parametrize(
    ("script", "attribute"),
    [
        ("temporary away", "TEMPORARY_FAILURE_THRESHOLD"),
        ("defer away", "DEFERRED_RETRY_THRESHOLD"),
    ],
)
def test_a_job_fails_once_its_errors_exceed_the_threshold(
    using: str, script: str, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FifoJob, attribute, 2)
    FifoJob.enqueue(using=using, script=script)
    seen = []
    for _ in range(3):
        row = run_one(FifoJob, using)
        seen.append((row.status, row.error_count))
        FifoJob.rows(using).update(run_after=None)
    waiting = "NEW" if script.startswith("temporary") else "DEFERRED"
    assert seen == [(waiting, 1), (waiting, 2), ("FAILED", 3)]
    assert "threshold" in row.error_message
    assert "away" in row.error_message


def test_back_off_has_a_cap_and_jitter(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LaneJob, "BACKOFF_CAP_MINUTES", 3)
    monkeypatch.setattr(LaneJob, "BACKOFF_JITTER", 0.5)
    LaneJob.enqueue(using=using, script="temporary away")
    LaneJob.rows(using).update(error_count=5)
    assert 3 * A_MINUTE <= pause_of(run_one(LaneJob, using)) <= 4.5 * A_MINUTE


@pytest.mark.parametrize(
    ("given", "pause"),
    [
        (7, timedelta(seconds=7)),
        (timedelta(minutes=2), timedelta(minutes=2)),
        (-5, timedelta(0)),
        (float("nan"), timedelta(0)),
        (10**400, timedelta(days=365)),
        (float("inf"), timedelta(days=365)),
    ],
)
def test_a_job_may_name_its_pause(
    using: str, given: Any, pause: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(self: Any) -> None:
        raise TemporaryJobFailure("busy", retry_after=given)

    monkeypatch.setattr(LaneJob, "process", process)
    LaneJob.enqueue(using=using)
    row = run_one(LaneJob, using)
    assert (row.status, row.error_count) == ("NEW", 1)
    assert pause_of(row) == pause


@pytest.mark.parametrize("given", ["soon", True, [5]])
def test_a_pause_that_is_no_number_fails_the_job_and_says_so(
    using: str, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(self: Any) -> None:
        raise TemporaryJobFailure("busy", retry_after=given)

    monkeypatch.setattr(LaneJob, "process", process)
    LaneJob.enqueue(using=using)
    row = run_one(LaneJob, using)
    assert row.status == "FAILED"
    assert "retry_after must be a number of seconds" in row.error_message
    assert "raise TemporaryJobFailure" in row.error_traceback


# Order


def test_a_head_that_is_not_due_holds_its_lane_and_a_deferred_one_does_not(using: str) -> None:
    LaneJob.enqueue(using=using, shop="a", run_after=timedelta(hours=1))
    LaneJob.enqueue(using=using, shop="a")
    LaneJob.enqueue(using=using, shop="b", script="defer later")
    LaneJob.enqueue(using=using, shop="b")
    LaneJob.rows(using).filter(script="defer later").update(error_count=18)
    work_off(LaneJob, using)
    found = LaneJob.rows(using).order_by("id").values_list("status", "attempt")
    assert list(found) == [("NEW", 0), ("NEW", 0), ("FAILED", 2), ("PROCESSED", 1)]


# is_processable()


def test_an_unprocessable_job_of_a_lane_pauses_its_lane(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LaneJob, "is_processable", lambda self: self.shop == "open")
    LaneJob.enqueue_many([LaneJob(), LaneJob(), LaneJob(shop="open")], using=using)
    row = work_off(LaneJob, using)
    assert pause_of(row) == A_MINUTE
    found = LaneJob.rows(using).order_by("id").values_list("status", "attempt", "error_count")
    assert list(found) == [("NEW", 1, 0), ("NEW", 0, 0), ("PROCESSED", 1, 0)]


def test_an_unprocessable_job_without_order_waits_alone(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FreeJob, "is_processable", lambda self: self.script != "closed")
    scripts = ["closed", "", "closed", "", ""]
    FreeJob.enqueue_many([FreeJob(script=script) for script in scripts], using=using)
    row = work_off(FreeJob, using)
    assert pause_of(row) == A_MINUTE
    found = list(FreeJob.rows(using).order_by("id").values_list("status", flat=True))
    assert found == ["NEW", "PROCESSED", "NEW", "PROCESSED", "PROCESSED"]


def test_many_unprocessable_jobs_in_a_row_end_the_run(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FreeJob, "is_processable", lambda self: self.script != "closed")
    most = MOST_UNPROCESSABLE
    in_a_row = ["closed"] * (most - 1) + [""] + ["closed"] * most + [""]
    FreeJob.enqueue_many([FreeJob(script=script) for script in in_a_row], using=using)

    work_off(FreeJob, using)
    rows = FreeJob.rows(using)
    assert rows.filter(status="PROCESSED").count() == 1, "the last one was not reached"
    assert rows.filter(run_after__isnull=False).count() == 2 * most - 1
    assert rows.filter(status="PROCESSING").count() == 0, "the rest was given back"

    work_off(FreeJob, using)
    assert rows.filter(status="PROCESSED").count() == 2, "the next run goes on"


# Terminated


@pytest.mark.parametrize("hands_back", [True, False])
def test_a_job_that_is_told_to_stop_may_hand_itself_back(
    using: str, hands_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, told = threading.Event(), threading.Event()
    worker = ForegroundWorker(FifoJob, stop)

    def process(self: Any) -> None:
        stop.set()
        worker.tell_current_job()
        assert told.wait(20), "nobody told the job"

    def on_job_terminated(self: Any) -> None:
        if hands_back:
            assert self.update_job_for_being_resumed()
        told.set()

    monkeypatch.setattr(FifoJob, "process", process)
    monkeypatch.setattr(FifoJob, "on_job_terminated", on_job_terminated)
    FifoJob.enqueue_many([FifoJob(), FifoJob()], using=using)
    worker.run_in(using)

    first, second = FifoJob.rows(using).order_by("id")
    assert (first.status, first.error_count) == ("NEW" if hands_back else "PROCESSED", 0)
    assert second.status == "NEW", "no other was begun"
