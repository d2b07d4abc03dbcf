"""The progress of a long job: what a body may say, and what comes of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from parviraptor_celery import leases, signals
from parviraptor_celery.exceptions import InvalidProgress
from parviraptor_celery.guarded import GuardedRow
from parviraptor_celery.progress import described
from tests.testapp.models import AtomicJob, FifoJob, FreeJob
from tests.unit.jobs import received, reloaded, work_off


class TestOutsideOfARun:
    """No test here may use a database."""

    def test_it_is_only_set_on_the_object(self) -> None:
        job = FifoJob(pk=3)
        assert job.progress == ""
        job.set_progress(30, 100, "reading")
        assert job.progress == "30 of 100 (30 %), reading"
        assert job.unwritten_progress() == {}

    @pytest.mark.parametrize(
        ("done", "total", "note", "text"),
        [
            (None, None, "", ""),
            (0, None, "", "0"),
            (7, None, "reading", "7, reading"),
            (1, 3, "", "1 of 3 (33 %)"),
            (0, 0, "", "0 of 0"),
            (999, 1000, "", "999 of 1000 (99 %)"),
            (5, 5, "done", "5 of 5 (100 %), done"),
        ],
    )
    def test_it_is_shown_in_words(self, done: Any, total: Any, note: str, text: str) -> None:
        assert described(done, total, note) == text

    @pytest.mark.parametrize(
        "wrong", [-1, True, False, 1.5, math.nan, math.inf, "7", None, 2**63, [1]]
    )
    def test_done_has_to_be_a_whole_number(self, wrong: Any) -> None:
        job = FifoJob()
        with pytest.raises(InvalidProgress, match=r"set_progress\(\): done must be"):
            job.set_progress(wrong)
        assert job.progress == ""

    @pytest.mark.parametrize("wrong", [-1, True, 1.5, math.nan, "7", 2**63])
    def test_total_has_to_be_a_whole_number(self, wrong: Any) -> None:
        with pytest.raises(InvalidProgress, match=r"set_progress\(\): total must be"):
            FifoJob().set_progress(1, wrong)

    @pytest.mark.parametrize("wrong", [None, 7, b"bytes"])
    def test_a_note_has_to_be_a_text(self, wrong: Any) -> None:
        with pytest.raises(InvalidProgress, match=r"set_progress\(\): note must be a text"):
            FifoJob().set_progress(1, 2, wrong)

    def test_a_total_that_was_guessed_too_small_grows(self) -> None:
        job = FifoJob()
        job.set_progress(101, 100)
        assert job.progress == "101 of 101 (100 %)"

    def test_a_note_that_is_too_long_is_cut(self) -> None:
        job = FifoJob()
        job.set_progress(1, note="ü" * 201)
        assert job.progress_note == "ü" * 199 + "…"
        job.set_progress(1, note="ü" * 200)
        assert job.progress_note == "ü" * 200

    def test_a_note_that_no_database_stores_is_escaped(self) -> None:
        job = FifoJob()
        job.set_progress(1, note="a\0b\ud800")
        assert job.progress_note == "a\\x00b\\ud800"


@pytest.mark.django_db
class TestInARun:
    @pytest.mark.parametrize("queue", [FifoJob, FreeJob, AtomicJob])
    def test_the_last_values_go_out_with_the_outcome(
        self, queue: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            for done in range(101):
                self.set_progress(done, 100, f"row {done}")

        monkeypatch.setattr(queue, "process", process)
        job = queue.enqueue()
        work_off(queue)
        assert reloaded(job).progress == "100 of 100 (100 %), row 100"

    @pytest.mark.parametrize("script", ["fail x", "temporary x", "defer x", "ignore x", "invalid"])
    @pytest.mark.parametrize("queue", [FifoJob, AtomicJob])
    def test_they_do_so_whatever_the_outcome_is(
        self, queue: Any, script: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        as_scripted = queue.process

        def process(self: Any) -> None:
            self.set_progress(3, 9)
            as_scripted(self)

        monkeypatch.setattr(queue, "process", process)
        job = queue.enqueue(script=script)
        work_off(queue)
        assert reloaded(job).status != "PROCESSED"
        assert reloaded(job).progress == "3 of 9 (33 %)"

    def test_it_begins_anew_with_each_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []

        def process(self: Any) -> None:
            seen.append((self.progress, self.progress_note))

        monkeypatch.setattr(FifoJob, "process", process)
        job = FifoJob.enqueue()
        FifoJob.rows("default").update(progress_done=1, progress_total=2, progress_note="old")
        work_off(FifoJob)
        assert seen == [("", "")]
        row = reloaded(job)
        assert (row.progress_done, row.progress_total, row.progress_note) == (None, None, "")

    def test_nobody_else_is_told_more_than_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def process(self: Any) -> None:
            for done in range(10):
                self.set_progress(done)

        monkeypatch.setattr(FifoJob, "process", process)
        FifoJob.enqueue()
        with received(signals.job_progresses) as told:
            work_off(FifoJob)
        assert len(told) == 1

    @pytest.mark.parametrize("queue", [FifoJob, FreeJob, AtomicJob])
    def test_a_short_job_pays_no_query_for_it(
        self,
        queue: Any,
        monkeypatch: pytest.MonkeyPatch,
        django_assert_num_queries: Any,
        django_assert_max_num_queries: Any,
    ) -> None:
        def queries_of(process: Any) -> int:
            monkeypatch.setattr(queue, "process", process)
            queue.enqueue()
            with django_assert_max_num_queries(99) as captured:
                work_off(queue)
            return len(captured)

        def says(self: Any) -> None:
            for done in range(1000):
                self.set_progress(done, 1000)

        assert queries_of(says) == queries_of(lambda self: None)

    def test_a_save_in_the_body_leaves_it_to_the_heartbeat(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            self.set_progress(1, 2)
            self.save()
            assert reloaded(self).progress == ""

        monkeypatch.setattr(FifoJob, "process", process)
        job = FifoJob.enqueue()
        work_off(FifoJob)
        assert (reloaded(job).status, reloaded(job).progress) == ("PROCESSED", "1 of 2 (50 %)")


class TestTheHeartbeat:
    def test_is_hastened_no_more_than_once_a_second(self) -> None:
        assert leases.HASTE_SECONDS == 1.0

    def test_writes_the_newest_and_what_was_said_while_it_wrote(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[Any] = []
        hastened: list[int] = []
        job = FifoJob(pk=1)

        def renew(self: Any, **columns: Any) -> bool:
            written.append(columns.get("progress_done"))
            if len(written) == 1:
                job.set_progress(3)
            return True

        def keep_lease(self: Any) -> bool:
            return bool(self.renew())

        monkeypatch.setattr(GuardedRow, "renew", renew)
        monkeypatch.setattr(GuardedRow, "keep_lease", keep_lease, raising=False)
        with job.progressing(lambda: hastened.append(1)):
            job.set_progress(1)
            job.set_progress(2)
            assert len(hastened) == 1
            assert job.keep_lease()
            assert len(hastened) == 2, "3 came while 2 was written"
            assert job.keep_lease()
            assert written == [2, 3]
            assert job.unwritten_progress() == {}
            assert job.keep_lease()
            assert written == [2, 3, None]

    def test_that_failed_leaves_it_for_the_next_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        job = FifoJob(pk=1)
        monkeypatch.setattr(GuardedRow, "renew", lambda self, **_: False)
        monkeypatch.setattr(GuardedRow, "keep_lease", lambda self: self.renew(), raising=False)
        with job.progressing(lambda: None):
            job.set_progress(1)
            assert not job.keep_lease()
            assert job.unwritten_progress()["progress_done"] == 1
