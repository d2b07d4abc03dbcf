"""The commands of the queues, as a person types them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from parviraptor_celery.foreground import ForegroundWorker
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.jobs import reloaded, statuses

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


class TestProcessQueue:
    @pytest.fixture(autouse=True)
    def keep_signals(self) -> Iterator[None]:
        kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        yield
        for number, handler in kept.items():
            signal.signal(number, handler)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("queue", [FreeJob, FifoJob, LaneJob])
    def test_works_the_queue_off_until_it_is_told_to_stop(
        self, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, queue: Any
    ) -> None:
        def process(self: Any) -> None:
            if self.script == "stop":
                signal.raise_signal(number)

        monkeypatch.setattr(queue, "process", process)
        for script in ("", "", "stop", "after the stop"):
            queue.enqueue(script=script)
        out = run("process_queue", "testapp", queue.__name__)
        assert statuses(queue) == ["PROCESSED", "PROCESSED", "PROCESSED", "NEW"]
        assert queue._meta.label in out
        assert "stopped after 3 jobs" in out

    def test_runs_one_job_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def process(self: Any) -> None:
            assert statuses(FreeJob).count("PROCESSING") == 1
            if not FreeJob.objects.filter(status="NEW").exists():
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(FreeJob, "process", process)
        FreeJob.enqueue_many(FreeJob() for _ in range(3))
        run("process_queue", "testapp", "FreeJob")
        assert statuses(FreeJob) == ["PROCESSED"] * 3

    @pytest.mark.parametrize("reason", ["", "maintenance"])
    def test_says_that_the_queue_is_paused(
        self, monkeypatch: pytest.MonkeyPatch, reason: str
    ) -> None:
        monkeypatch.setattr(ForegroundWorker, "run", lambda self: 0)
        FreeJob.pause(reason=reason)
        told = f": {reason}\n" if reason else "\n"
        out = run("process_queue", "testapp", "FreeJob")
        assert f"testapp.FreeJob in default is paused, nothing begins{told}" in out
        assert "paused" not in run("process_queue", "testapp", "FifoJob")

    def test_tells_a_person_how_long_it_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ForegroundWorker, "run", lambda self: 0)
        terminal = Terminal()
        call_command("process_queue", "testapp", "FreeJob", stdout=terminal)
        assert "processing testapp.FreeJob until SIGTERM or SIGINT\n" in terminal.getvalue()
        assert run("process_queue", "testapp", "FreeJob").startswith("processing testapp.FreeJob\n")

    def test_takes_the_name_in_any_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FreeJob, "process", lambda self: signal.raise_signal(signal.SIGINT))
        FreeJob.enqueue()
        assert "stopped after 1 job\n" in run("process_queue", "testapp", "freejob")

    def test_rescues_first_what_a_dead_process_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FifoJob, "process", lambda self: signal.raise_signal(signal.SIGTERM))
        job = FifoJob.enqueue()
        job.claim()
        FifoJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        run("process_queue", "testapp", "FifoJob")
        assert (reloaded(job).status, reloaded(job).worker_deaths) == ("PROCESSED", 1)

    @pytest.mark.parametrize(
        ("app", "model"), [("testapp", "NoSuchJob"), ("nowhere", "FreeJob"), ("testapp", "Note")]
    )
    def test_names_an_unknown_queue_and_the_known_ones(self, app: str, model: str) -> None:
        with pytest.raises(CommandError) as caught:
            run("process_queue", app, model)
        assert f"'{app}.{model}' is not a job queue here" in str(caught.value)
        assert "testapp.FreeJob" in str(caught.value)


class TestCleanOldProcessedJobs:
    @pytest.fixture(autouse=True)
    def old_jobs(self) -> None:
        old = timezone.now() - timedelta(days=8)
        for queue in (FreeJob, FreeJob, FifoJob):
            queue.objects.create(status="PROCESSED", modification_date=old)

    def test_cleans_every_queue(self) -> None:
        out = run("clean_old_processed_jobs", "--all-queues")
        assert not FreeJob.objects.exists()
        assert not FifoJob.objects.exists()
        assert "testapp.FreeJob in default: deleted 2 jobs" in out

    def test_cleans_one_queue(self) -> None:
        run("clean_old_processed_jobs", "--queue", "testapp.FreeJob")
        assert (FreeJob.objects.count(), FifoJob.objects.count()) == (0, 1)

    def test_only_counts_when_asked_to(self) -> None:
        out = run("clean_old_processed_jobs", "--all-queues", "--dry-run")
        assert "testapp.FreeJob in default: would delete 2 jobs" in out
        assert (FreeJob.objects.count(), FifoJob.objects.count()) == (2, 1)

    def test_says_which_queue_keeps_its_jobs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FreeJob, "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", None)
        out = run("clean_old_processed_jobs", "--queue", "testapp.FreeJob")
        assert "keeps its jobs for ever" in out
        assert FreeJob.objects.count() == 2

    @pytest.mark.parametrize("label", ["testapp.NoSuchJob", "FreeJob", "", "a.b.c"])
    def test_names_an_unknown_queue_and_the_known_ones(self, label: str) -> None:
        with pytest.raises(CommandError, match="is not a job queue here") as caught:
            run("clean_old_processed_jobs", "--queue", label)
        assert repr(label) in str(caught.value)
        assert "testapp.FreeJob" in str(caught.value)

    def test_wants_to_know_which(self) -> None:
        with pytest.raises(CommandError, match="--all-queues"):
            run("clean_old_processed_jobs")

    def test_wants_one_answer(self) -> None:
        with pytest.raises(CommandError, match="not allowed with"):
            run("clean_old_processed_jobs", "--all-queues", "--queue", "testapp.FreeJob")

    def test_shows_a_person_how_far_it_is(self, settings: Any) -> None:
        settings.PARVIRAPTOR_CONFIG = {"CLEAN_CHUNK_ROWS": 1}
        terminal = Terminal()
        call_command("clean_old_processed_jobs", "--queue=testapp.FreeJob", stdout=terminal)
        shown = terminal.getvalue()
        assert "\rtestapp.FreeJob in default: 1 rows deleted, " in shown
        assert "\rtestapp.FreeJob in default: 2 rows deleted, " in shown
        assert shown.endswith(" rows/s\ntestapp.FreeJob in default: deleted 2 jobs\n")

    def test_says_only_the_results_in_a_pipe(self) -> None:
        out = run("clean_old_processed_jobs", "--queue=testapp.FreeJob")
        assert out == "testapp.FreeJob in default: deleted 2 jobs\n"

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_ends_after_the_chunk_when_it_is_told_to_stop(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
    ) -> None:
        settings.PARVIRAPTOR_CONFIG = {"CLEAN_CHUNK_ROWS": 1}
        monkeypatch.setattr(
            "parviraptor_celery.management.commands.clean_old_processed_jobs.Progress.__call__",
            lambda progress, rows: signal.raise_signal(number),
        )
        before = signal.getsignal(number)
        with pytest.raises(CommandError, match=f"Stopped by {number.name}") as caught:
            run("clean_old_processed_jobs", "--all-queues")
        assert caught.value.returncode == code
        assert FreeJob.objects.count() + FifoJob.objects.count() == 2
        assert signal.getsignal(number) == before

    def test_fails_when_a_queue_could_not_be_cleaned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(queue: Any, *args: Any, **kwargs: Any) -> int:
            if queue is FifoJob:
                raise OperationalError("away")
            return 7

        monkeypatch.setattr("parviraptor_celery.cleanup.clean", fail)
        out = StringIO()
        with pytest.raises(CommandError, match=r"testapp\.FifoJob in default could not") as caught:
            call_command("clean_old_processed_jobs", "--all-queues", stdout=out)
        assert caught.value.returncode == 1
        assert "testapp.FreeJob in default: deleted 7 jobs" in out.getvalue()


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True
