"""Bodies that end in unusual ways, and rows that are hard to handle: each costs its own job."""

from __future__ import annotations

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from celery.exceptions import WorkerShutdown
from django.db import OperationalError, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parviraptor_celery import broker, dispatch, signals
from parviraptor_celery.dispatch import JobPoolFeed
from parviraptor_celery.drains import Budget
from parviraptor_celery.foreground import ForegroundWorker
from tests.integration.threads import closing_connections, open_transaction, wait_for
from tests.integration.working_off import enqueue, statuses, work_off
from tests.testapp.models import (
    AtomicJob,
    FifoJob,
    FileJob,
    FreeJob,
    GeneratedJob,
    Note,
    PickyLaneJob,
)
from tests.unit.jobs import received


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr(broker, "kick", lambda *_, **__: True)


class TestABody:
    @pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
    @pytest.mark.parametrize("queue", [FifoJob, FreeJob])
    def test_that_ends_by_no_exception_fails_with_its_reason(
        self, using: str, queue: Any, error: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            raise error

        monkeypatch.setattr(queue, "process", process)
        (job,) = enqueue(queue, using, [""])
        work_off(queue, using)
        row = queue.rows(using).get(pk=job.pk)
        assert (row.status, row.worker_deaths) == ("FAILED", 0)
        assert type(error).__name__ in row.error_message
        assert "process" in row.error_traceback

    @pytest.mark.parametrize("error", [WorkerShutdown(), SystemExit(signal.SIGQUIT - 256)])
    def test_that_is_interrupted_by_its_worker_is_not_said_to_have_failed(
        self, using: str, error: SystemExit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            raise error

        monkeypatch.setattr(FifoJob, "process", process)
        enqueue(FifoJob, using, [""])
        with pytest.raises(SystemExit):
            work_off(FifoJob, using)
        assert statuses(FifoJob, using) == ["PROCESSING"]

    def test_that_exits_because_its_worker_stops_is_not_said_to_have_failed(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            raise SystemExit(1)

        monkeypatch.setattr(FifoJob, "process", process)
        monkeypatch.setattr("parviraptor_celery.stopping.is_stopping", lambda: True)
        enqueue(FifoJob, using, [""])
        with pytest.raises(SystemExit):
            work_off(FifoJob, using)
        assert statuses(FifoJob, using) == ["PROCESSING"]

    def test_may_read_again_what_the_database_computes(self, using: str) -> None:
        GeneratedJob.enqueue(using=using)
        work_off(GeneratedJob, using)
        assert GeneratedJob.rows(using).values_list("status", "twice").get() == ("PROCESSED", 10)

    def test_that_deletes_its_own_job_is_no_lost_lease(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FifoJob, "process", lambda self: self.delete())
        enqueue(FifoJob, using, ["", ""])
        with received(signals.lease_lost) as lost:
            work_off(FifoJob, using)
        assert (statuses(FifoJob, using), lost) == ([], [])

    def test_of_an_outcome_that_the_database_refuses_fails_with_its_message(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (job,) = enqueue(FifoJob, using, [""])
        settle = FifoJob.move
        refused: list[str] = []

        def move(self: Any, to: str, **columns: Any) -> bool:
            if to == "PROCESSED" and not refused:
                refused.append(to)
                raise OperationalError("near nothing: syntax error")
            return settle(self, to, **columns)

        monkeypatch.setattr(FifoJob, "move", move)
        monkeypatch.setattr("parviraptor_celery.claims.is_possible", lambda _: False)
        work_off(FifoJob, using)
        row = FifoJob.rows(using).get(pk=job.pk)
        assert (row.status, row.attempt) == ("FAILED", 1)
        assert "syntax error" in row.error_message

    @pytest.mark.parametrize("queue", [FifoJob, FreeJob, AtomicJob])
    def test_that_leaves_a_transaction_open_takes_no_other_job_with_it(
        self, using: str, queue: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left_open: list[ExitStack] = []

        def process(self: Any) -> None:
            if self.script == "leave it open":
                left_open.append(stack := ExitStack())
                stack.enter_context(transaction.atomic(using=using))
            Note.objects.using(using).create(text=str(self.pk))

        monkeypatch.setattr(queue, "process", process)
        jobs = [queue(script="leave it open")]
        queue.enqueue_many(jobs, using=using)
        work_off(queue, using)
        enqueue(queue, using, ["", ""], **({"shop": "b"} if queue is AtomicJob else {}))
        if queue is FifoJob:
            queue.rows(using).filter(status="FAILED").first().ignore()
        work_off(queue, using)
        connections[using].close()  # as Celery does between tasks: what was not committed is gone
        first = "IGNORED" if queue is FifoJob else "FAILED"
        assert statuses(queue, using) == [first, "PROCESSED", "PROCESSED"]
        assert Note.objects.using(using).count() == 2
        assert "left a transaction open" in queue.rows(using).order_by("id").first().error_message

    def test_that_sets_its_key_to_none_is_recorded_all_the_same(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            self.result, self.pk = 7, None

        monkeypatch.setattr(FifoJob, "process", process)
        enqueue(FifoJob, using, ["", ""])
        with received(signals.job_finished) as finished:
            work_off(FifoJob, using)
        rows = FifoJob.rows(using).order_by("id").values_list("pk", "status", "result")
        assert [(status, result) for _, status, result in rows] == [("PROCESSED", 7)] * 2
        assert [told["job"].pk for told in finished] == [pk for pk, _, _ in rows]

    def test_that_saves_itself_as_another_job_is_told_what_to_do(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            self.pk = None
            self.save()

        monkeypatch.setattr(FifoJob, "process", process)
        (job,) = enqueue(FifoJob, using, [""])
        work_off(FifoJob, using)
        row = FifoJob.rows(using).get()
        assert (row.pk, row.status) == (job.pk, "FAILED")
        assert "enqueue()" in row.error_message


class TestAForegroundWorker:
    def test_comes_to_all_lanes_though_one_never_ends(
        self, using: str, monkeypatch: pytest.MonkeyPatch, settings: Any
    ) -> None:
        settings.PARVIRAPTOR_CONFIG = {"KICK_JOBS": 5}
        ran: list[str] = []
        worker = ForegroundWorker(PickyLaneJob, threading.Event())

        def process(self: Any) -> None:
            ran.append(self.shop)
            if self.shop == "a":
                PickyLaneJob.enqueue(using=using, shop="a")
            if len(ran) > 30:
                worker.stop.set()

        monkeypatch.setattr(PickyLaneJob, "process", process)
        for shop in "abcd":
            PickyLaneJob.enqueue(using=using, shop=shop)
        worker.run_in(using)
        assert {"a", "b", "c", "d"} <= set(ran)
        assert len(ran) < 12

    def test_asks_no_lane_that_can_not_run(self, using: str) -> None:
        later = timezone.now() + timedelta(hours=1)
        jobs = [PickyLaneJob(shop=str(number), run_after=later) for number in range(30)]
        PickyLaneJob.enqueue_many(jobs, using=using)
        worker = ForegroundWorker(PickyLaneJob, threading.Event())
        with CaptureQueriesContext(connections[using]) as idle:
            assert worker.run_in(using) == 0
        looks = [query for query in idle.captured_queries if "held_by" in query["sql"]]
        assert looks == []


class TestAStaleObject:
    @pytest.mark.parametrize("queue", [FifoJob, FreeJob])
    def test_from_a_bulk_writes_no_status_back(self, using: str, queue: Any) -> None:
        many = queue.enqueue_many([queue()], using=using)
        bulk = queue.rows(using).bulk_create([queue()])
        work_off(queue, using)
        if None in (many[0].pk, bulk[0].pk):
            return  # MySQL doesn't tell the keys of rows inserted in bulk, so nobody can save them
        for job in (*many, *bulk):
            job.script = "changed"
            job.save()
        assert work_off(queue, using) == 0
        rows = queue.rows(using).values_list("status", "script", "attempt")
        assert set(rows) == {("PROCESSED", "changed", 1)}


class TestALongJob:
    def test_shares_what_was_leased_with_it(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dispatch, "PATIENCE_SECONDS", 0.05)
        slow, end = threading.Event(), threading.Event()

        def process(self: Any) -> None:
            if self.script == "slow":
                slow.set()
                assert end.wait(20)

        monkeypatch.setattr(FreeJob, "process", process)
        FreeJob.enqueue_many([FreeJob(script="slow"), *[FreeJob() for _ in range(5)]], using=using)

        def work() -> int:
            return dispatch.run_pool(FreeJob, using, Budget.endless()).rows

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(closing_connections, work)
            try:
                assert slow.wait(20)
                wait_for(lambda: statuses(FreeJob, using)[1:] == ["NEW"] * 5)
                assert work() == 5
            finally:
                end.set()
            assert first.result(20) == 1
        rows = FreeJob.rows(using).order_by("id").values_list("status", "worker_deaths")
        assert list(rows) == [("PROCESSED", 0)] * 6
        assert max(FreeJob.rows(using).values_list("attempt", flat=True)) == 2

    def test_keeps_what_has_begun(self, using: str) -> None:
        FreeJob.enqueue_many([FreeJob() for _ in range(3)], using=using)
        feed = JobPoolFeed(FreeJob.rows(using), 10, Budget.endless())
        feed.first()
        assert feed.claimed[0].begin()  # as its feed may do while the heartbeat gives back
        assert feed.rows.give_back_unbegun(list(feed.claimed)) == 1
        assert statuses(FreeJob, using) == ["PROCESSING", "PROCESSING", "NEW"]


class TestAQueueWithFiles:
    def test_needs_no_copy_of_what_can_not_be_copied(self, using: str) -> None:
        FileJob.enqueue(using=using)
        work_off(FileJob, using)
        found = FileJob.rows(using).values_list("status", "report").get()
        assert found == ("PROCESSED", "reports/new.txt")


class TestADueTime:
    def test_of_a_deferred_job_is_awaited(self, using: str) -> None:
        later = timezone.now() + timedelta(hours=1)
        for queue in (FifoJob, FreeJob):
            queue.rows(using).bulk_create([queue(status="DEFERRED", run_after=later)])
            assert work_off(queue, using) == 0
            queue.rows(using).update(run_after=None)
            assert work_off(queue, using) == 1

    def test_two_days_ahead_is_no_alarm(self, using: str) -> None:
        long_ago = timezone.now() - timedelta(days=1)
        rows = FreeJob.rows(using)
        rows.bulk_create(
            [
                FreeJob(creation_date=long_ago, run_after=timezone.now() + timedelta(days=1)),
                FreeJob(creation_date=long_ago, run_after=long_ago),
                FreeJob(creation_date=long_ago, run_after=timezone.now(), error_count=9),
                FreeJob(creation_date=long_ago),
                FreeJob(),
            ]
        )
        too_old = timezone.now() - timedelta(hours=16)
        assert rows.waiting_since(too_old).count() == 3


@pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
def test_while_another_worker_claims_the_first_no_deferred_job_overtakes(using: str) -> None:
    past = timezone.now() - timedelta(minutes=1)
    jobs = [FreeJob(run_after=past), *[FreeJob() for _ in range(30)], FreeJob(status="DEFERRED")]
    FreeJob.rows(using).bulk_create(jobs)

    def claim_the_first() -> None:
        assert len(FreeJob.rows(using).next_unlocked(10)) == 10

    with open_transaction(using, claim_the_first), transaction.atomic(using=using):
        feed = JobPoolFeed(FreeJob.rows(using), 10, Budget.endless())
        # MariaDB may lock more of a small table than it returns, so perhaps none is left.
        assert {job.status for job in feed.choose()} <= {"NEW"}


class TestAnAtomicBody:
    def test_whose_own_hook_raises_is_processed_all_the_same(
        self, using: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        runs: list[int] = []

        def hook() -> None:
            raise OperationalError("database is locked")  # which may be tried again, elsewhere

        def process(self: Any) -> None:
            runs.append(self.pk)
            Note.objects.using(using).create(text="kept")
            transaction.on_commit(hook, using=using)

        monkeypatch.setattr(AtomicJob, "process", process)
        enqueue(AtomicJob, using, [""])
        with received(signals.lease_lost) as lost, received(signals.job_finished) as finished:
            work_off(AtomicJob, using)
        assert statuses(AtomicJob, using) == ["PROCESSED"]
        assert (len(runs), len(finished), lost) == (1, 1, [])
        assert Note.objects.using(using).count() == 1
        assert "a hook of its body raised" in caplog.text

    def test_that_hands_itself_back_waits_again_at_no_cost(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            Note.objects.using(using).create(text="undone")
            assert self.update_job_for_being_resumed()

        monkeypatch.setattr(AtomicJob, "process", process)
        (job,) = enqueue(AtomicJob, using, [""])
        feed = dispatch.JobLaneFeed(AtomicJob.rows(using), job.lane)
        feed.settle(feed.run(feed.first()), claim_next=False)
        row = AtomicJob.rows(using).get(pk=job.pk)
        assert (row.status, row.lease_until, row.worker_deaths, row.error_count) == (
            "NEW",
            None,
            0,
            0,
        )
        assert Note.objects.using(using).count() == 0

    @pytest.mark.parametrize("using", ["postgresql"], indirect=True)
    def test_whose_statement_took_too_long_is_not_repeated(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs: list[int] = []

        def process(self: Any) -> None:
            runs.append(self.pk)
            with connections[using].cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = '20ms'")
                cursor.execute("SELECT pg_sleep(5)")

        monkeypatch.setattr(AtomicJob, "process", process)
        enqueue(AtomicJob, using, [""])
        work_off(AtomicJob, using)
        assert (statuses(AtomicJob, using), len(runs)) == (["FAILED"], 1)
