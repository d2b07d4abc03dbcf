"""What becomes of a job, by what its body does: status, counts, messages, pauses, fields."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from parviraptor_celery import signals
from parviraptor_celery.exceptions import LeaseLost, TemporaryJobFailure
from parviraptor_celery.models import AbstractJob
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob, Note
from tests.unit.jobs import let_be_due, pause_of, received, reloaded, run_one, work_off

pytestmark = pytest.mark.django_db

QUEUES = pytest.mark.parametrize("queue", [FreeJob, LaneJob, FifoJob, AtomicJob])
A_MINUTE = timedelta(minutes=1)


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
class TestEveryOutcome:
    def test_is_written_with_its_count_and_message(
        self, queue: Any, script: str, status: str, error_count: int, message: str
    ) -> None:
        job = queue.enqueue(script=script)
        assert run_one(queue) == 1
        row = reloaded(job)
        assert (row.status, row.error_count, row.error_message) == (status, error_count, message)

    def test_saves_the_fields_that_the_body_set(
        self, queue: Any, script: str, status: str, error_count: int, message: str
    ) -> None:
        job = queue.enqueue(script=script)
        run_one(queue)
        assert reloaded(job).result == 1

    def test_ends_the_lease(
        self, queue: Any, script: str, status: str, error_count: int, message: str
    ) -> None:
        job = queue.enqueue(script=script)
        run_one(queue)
        row = reloaded(job)
        assert (row.lease_until, row.running_lane, row.leased_by) == (None, None, "")
        assert row.attempt == 1
        # SQLite's clock has milliseconds.
        assert row.modification_date > job.creation_date - timedelta(milliseconds=1)

    def test_keeps_what_the_body_wrote_unless_the_queue_is_atomic_and_it_failed(
        self, queue: Any, script: str, status: str, error_count: int, message: str
    ) -> None:
        queue.enqueue(script=script)
        run_one(queue)
        is_undone = queue.atomic and status != "PROCESSED"
        assert Note.objects.count() == (0 if is_undone else 1)


@QUEUES
def test_an_unexpected_exception_leaves_its_traceback(queue: Any) -> None:
    job = queue.enqueue(script="fail no stock")
    run_one(queue)
    assert "raise ValueError(rest)" in reloaded(job).error_traceback


def test_an_exception_without_a_message_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def process(self: Any) -> None:
        raise KeyError

    monkeypatch.setattr(FreeJob, "process", process)
    job = FreeJob.enqueue()
    run_one(FreeJob)
    assert reloaded(job).error_message == "KeyError"


def test_an_invalid_job_leaves_no_traceback() -> None:
    job = FreeJob.enqueue(script="invalid no such shop")
    run_one(FreeJob)
    assert reloaded(job).error_traceback == ""


class TestATemporaryFailure:
    def test_pauses_for_powers_of_the_step(self) -> None:
        job, pauses = LaneJob.enqueue(script="temporary away"), []
        for _ in range(7):
            run_one(LaneJob)
            pauses.append(pause_of(job) // A_MINUTE)
            let_be_due(LaneJob)
        assert pauses == [1, 2, 4, 8, 16, 32, 32]

    def test_pauses_for_the_constant_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FifoJob, "BACKOFF_STEP_MINUTES", 0.5)
        job, pauses = FifoJob.enqueue(script="temporary away"), []
        for _ in range(3):
            run_one(FifoJob)
            pauses.append(pause_of(job))
            let_be_due(FifoJob)
        assert pauses == [timedelta(seconds=30)] * 3

    def test_does_not_run_again_before_its_time(self) -> None:
        FreeJob.enqueue(script="temporary away")
        assert [work_off(FreeJob), work_off(FreeJob)] == [1, 0]

    def test_fails_once_its_errors_exceed_the_threshold(self) -> None:
        job, seen = FreeJob.enqueue(script="temporary away"), []  # its threshold is 2
        for _ in range(4):
            run_one(FreeJob)
            let_be_due(FreeJob)
            seen.append((reloaded(job).status, reloaded(job).error_count))
        assert seen == [("NEW", 1), ("NEW", 2), ("FAILED", 3), ("FAILED", 3)]
        assert "away" in reloaded(job).error_message

    def test_can_choose_its_pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def process(self: Any) -> None:
            raise TemporaryJobFailure("busy", retry_after=7)

        monkeypatch.setattr(FreeJob, "process", process)
        job = FreeJob.enqueue()
        run_one(FreeJob)
        assert pause_of(job) == timedelta(seconds=7)
        assert reloaded(job).error_count == 1

    def test_forgets_its_message_when_it_succeeds_after_all(self) -> None:
        job = FreeJob.enqueue(script="temporary away")
        run_one(FreeJob)
        FreeJob.objects.update(script="", run_after=None)
        run_one(FreeJob)
        row = reloaded(job)
        assert (row.status, row.error_message, row.result) == ("PROCESSED", "", 2)


class TestADeferredJob:
    def test_comes_back_without_a_pause_until_its_threshold(self) -> None:
        job = FreeJob.enqueue(script="defer not yet")
        assert work_off(FreeJob) == FreeJob.DEFERRED_RETRY_THRESHOLD + 1 == 20
        row = reloaded(job)
        assert (row.status, row.error_count) == ("FAILED", 20)
        assert "not yet" in row.error_message


class TestAJobThatIsNotProcessable:
    @QUEUES
    def test_waits_a_minute_uncounted_and_does_not_run(
        self, queue: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queue, "is_processable", lambda self: False)
        job = queue.enqueue()
        assert work_off(queue) == 1
        row = reloaded(job)
        assert (row.status, row.error_count, row.result) == ("NEW", 0, None)
        assert pause_of(job) == A_MINUTE
        assert work_off(queue) == 0

    def test_pauses_its_group_and_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LaneJob, "is_processable", lambda self: self.shop != "closed")
        LaneJob.enqueue(shop="closed")
        behind = LaneJob.enqueue(shop="closed")
        elsewhere = LaneJob.enqueue(shop="open")
        work_off(LaneJob)
        assert (reloaded(behind).attempt, reloaded(elsewhere).status) == (0, "PROCESSED")

    def test_that_raises_fails_as_the_body_would(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FreeJob, "is_processable", lambda self: 1 / 0)
        job = FreeJob.enqueue()
        run_one(FreeJob)
        assert reloaded(job).status == "FAILED"


class TestSavingFromTheBody:
    @pytest.fixture
    def body(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        return lambda process: monkeypatch.setattr(FreeJob, "process", process)

    def test_writes_the_users_columns_at_once(self, body: Any) -> None:
        def process(self: AbstractJob) -> None:
            self.result, self.script = 5, "changed"  # type: ignore[attr-defined]
            self.save(update_fields=["result"])
            row = FreeJob.objects.get()
            assert (row.result, row.script) == (5, "")

        body(process)
        job = FreeJob.enqueue()
        run_one(FreeJob)
        row = reloaded(job)
        assert (row.status, row.result, row.script) == ("PROCESSED", 5, "changed")

    def test_leaves_the_columns_of_the_engine_alone(self, body: Any) -> None:
        def process(self: Any) -> None:
            self.lease_until, self.worker_deaths, self.leased_by = None, 99, "nobody"
            self.save()
            row = FreeJob.objects.get()
            assert (row.status, row.worker_deaths) == ("PROCESSING", 0)
            assert row.lease_until is not None
            assert row.leased_by != "nobody"

        body(process)
        job = FreeJob.enqueue()
        run_one(FreeJob)
        assert (reloaded(job).status, reloaded(job).error_message) == ("PROCESSED", "")

    def test_is_refused_once_the_lease_is_lost(self, body: Any) -> None:
        refusals = []

        def process(self: Any) -> None:
            FreeJob.objects.update(attempt=F("attempt") + 1)
            self.result = 5
            try:
                self.save()
            except LeaseLost as error:
                refusals.append(error)

        body(process)
        job = FreeJob.enqueue()
        run_one(FreeJob)
        assert len(refusals) == 1
        assert reloaded(job).result is None


@QUEUES
def test_a_worker_that_lost_its_lease_records_nothing(
    queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(self: Any) -> None:
        type(self).objects.update(attempt=F("attempt") + 1)  # somebody else has it now
        self.result = 5

    monkeypatch.setattr(queue, "process", process)
    job = queue.enqueue()
    with received(signals.lease_lost) as lost, received(signals.job_finished) as finished:
        run_one(queue)
    row = reloaded(job)
    if not queue.atomic:  # there, the theft is undone together with the body
        assert (row.status, row.attempt, row.result) == ("PROCESSING", 2, None)
        assert [sent["job"].pk for sent in lost] == [job.pk]
        assert finished == []


class TestSignals:
    def test_tell_of_the_claim_and_of_the_end(self) -> None:
        job = FreeJob.enqueue(script="ignore")
        with received(signals.job_claimed) as claimed, received(signals.job_finished) as finished:
            run_one(FreeJob)
        assert [(sent["sender"], sent["job"].pk) for sent in claimed] == [(FreeJob, job.pk)]
        assert [(sent["sender"], sent["job"].status) for sent in finished] == [(FreeJob, "IGNORED")]

    @pytest.mark.parametrize("name", ["job_claimed", "job_finished"])
    def test_a_receiver_that_raises_harms_nothing(self, name: str) -> None:
        def receive(**_: Any) -> None:
            raise RuntimeError("a receiver")

        signal = getattr(signals, name)
        signal.connect(receive)
        try:
            job = FreeJob.enqueue()
            run_one(FreeJob)
        finally:
            signal.disconnect(receive)
        assert reloaded(job).status == "PROCESSED"


@pytest.mark.parametrize(
    "script", ["", "fail SECRET", "invalid SECRET", "ignore SECRET", "temporary SECRET"]
)
def test_logs_name_the_job_and_never_what_it_carries(
    script: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        job = FreeJob.enqueue(script=script)
        run_one(FreeJob)
    own = [r for r in caplog.records if r.name.startswith("parviraptor_celery")]
    assert any(f"testapp.FreeJob {job.pk}" in record.getMessage() for record in own)
    assert not any("SECRET" in logging.Formatter().format(record) for record in own)
