"""Leases: who holds a row, for how long, and what becomes of the rows of the dead."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.utils import timezone

from parviraptor_celery import leases, signals, sweep
from parviraptor_celery.dispatch import kick_budget, run_pool
from parviraptor_celery.leases import Heartbeat, worker_identity
from parviraptor_celery.models import AbstractJob
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.jobs import received, reloaded, statuses, work_off

PATIENCE = 10
"""Seconds until a test gives up waiting for a thread."""


class TestIdentity:
    def test_names_the_process_and_fits_its_column(self) -> None:
        name = worker_identity()
        assert f":{os.getpid()}:" in name
        assert len(name) <= 100
        assert worker_identity() == name

    def test_is_never_the_same_for_two_processes_even_with_one_pid(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid, before = os.getpid(), worker_identity()
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)
        worker_identity()
        monkeypatch.setattr(os, "getpid", lambda: pid)
        assert worker_identity() != before
        assert re.sub(r"\w+$", "", worker_identity()) == re.sub(r"\w+$", "", before)

    def test_is_another_one_for_each_thread(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(worker_identity).result()
            assert pool.submit(worker_identity).result() == elsewhere
        assert elsewhere != worker_identity()


class TestHeartbeat:
    def test_renews_while_the_block_runs(self) -> None:
        enough, calls = threading.Event(), []

        def renew() -> bool:
            calls.append(threading.current_thread())
            if len(calls) >= 3:
                enough.set()
            return True

        with Heartbeat().keep(renew, lease_seconds=0.03):
            assert enough.wait(PATIENCE)
        assert threading.current_thread() not in calls

    def test_goes_on_after_a_database_error(self, caplog: pytest.LogCaptureFixture) -> None:
        again, calls = threading.Event(), []

        def renew() -> bool:
            calls.append(1)
            if len(calls) == 1:
                raise DatabaseError("SECRET")
            again.set()
            return True

        with Heartbeat().keep(renew, lease_seconds=0.03):
            assert again.wait(PATIENCE)
        assert "DatabaseError" in caplog.text
        assert "SECRET" not in caplog.text

    def test_stops_for_a_lease_that_is_lost_and_goes_on_for_others(self) -> None:
        other_went_on, lost, other = threading.Event(), [], []

        def renew_lost() -> bool:
            lost.append(1)
            return False

        def renew_other() -> bool:
            other.append(1)
            if lost and len(other) >= 5:
                other_went_on.set()
            return True

        heartbeat = Heartbeat()
        with heartbeat.keep(renew_lost, 0.03), heartbeat.keep(renew_other, 0.03):
            assert other_went_on.wait(PATIENCE)
        assert len(lost) == 1

    def test_a_short_block_is_not_renewed(self) -> None:
        calls: list[int] = []
        with Heartbeat().keep(lambda: bool(calls.append(1)), lease_seconds=3600):
            pass
        assert calls == []

    def test_can_be_hastened_to_a_second_after_the_last_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "HASTE_SECONDS", 0.01)
        renewed, times = threading.Semaphore(0), []

        def renew() -> bool:
            times.append(1)
            renewed.release()
            return True

        with Heartbeat().keep(renew, lease_seconds=3600) as hasten:
            for times_before in (0, 1, 2):
                assert len(times) == times_before
                hasten()
                assert renewed.acquire(timeout=PATIENCE)

    def test_that_is_hastened_while_it_renews_does_so_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "HASTE_SECONDS", 0.01)
        again, times = threading.Event(), []

        def renew() -> bool:
            times.append(1)
            hasten() if len(times) == 1 else again.set()
            return True

        with Heartbeat().keep(renew, lease_seconds=3600) as hasten:
            hasten()
            assert again.wait(PATIENCE)

    def test_a_short_lease_does_not_wait_behind_a_long_one(self) -> None:
        renewed = threading.Event()

        def renew() -> bool:
            renewed.set()
            return True

        heartbeat = Heartbeat()
        with heartbeat.keep(lambda: True, 3600), heartbeat.keep(renew, 0.03):
            assert renewed.wait(PATIENCE)


def expire(*jobs: AbstractJob) -> None:
    for job in jobs:
        past = timezone.now() - timedelta(seconds=1)
        job.rows(job.alias).filter(pk=job.pk).update(lease_until=past)


@pytest.mark.django_db
class TestRenewing:
    def test_extends_the_lease_and_no_more(self) -> None:
        job = FifoJob.enqueue()
        job.claim()
        expire(job)
        before = reloaded(job)
        assert job.renew()
        row = reloaded(job)
        assert row.lease_until > timezone.now() + timedelta(seconds=30)
        assert row.modification_date == before.modification_date
        assert row.attempt == before.attempt

    def test_is_refused_when_somebody_else_has_the_job(self) -> None:
        job = FifoJob.enqueue()
        job.claim()
        FifoJob.objects.update(attempt=7)
        assert not job.renew()


@pytest.mark.django_db
class TestTheJobOfADeadWorker:
    @pytest.mark.parametrize("queue", [FreeJob, FifoJob])
    def test_goes_back_and_counts_a_death(self, queue: Any) -> None:
        job = queue.enqueue()
        job.claim()
        expire(job)
        with received(signals.job_rescued) as rescued:
            assert sweep.rescue(queue, "default") == 1
        row = reloaded(job)
        assert (row.status, row.worker_deaths, row.error_count) == ("NEW", 1, 0)
        assert (row.lease_until, row.running_lane, row.leased_by) == (None, None, "")
        assert [(sent["job_id"], sent["status"]) for sent in rescued] == [(job.pk, "NEW")]
        work_off(queue)
        assert reloaded(job).status == "PROCESSED"

    def test_pays_nothing_when_its_body_had_not_begun(self) -> None:
        job = FreeJob.enqueue()
        job.claim()
        FreeJob.objects.update(begun_at=None)
        expire(job)
        sweep.rescue(FreeJob, "default")
        assert (reloaded(job).status, reloaded(job).worker_deaths) == ("NEW", 0)

    def test_fails_when_it_keeps_killing_workers(self) -> None:
        seen = []
        for _ in range(3):
            job = FreeJob.objects.first() or FreeJob.enqueue()
            job.claim()
            expire(job)
            sweep.rescue(FreeJob, "default")
            seen.append((reloaded(job).status, reloaded(job).worker_deaths))
        assert seen == [("NEW", 1), ("NEW", 2), ("FAILED", 3)]
        assert "worker died 3 times" in reloaded(job).error_message

    def test_fails_after_as_many_deaths_as_the_settings_say(self, settings: Any) -> None:
        settings.PARVIRAPTOR_CONFIG = {"MAX_WORKER_DEATHS": 1}
        job = FreeJob.enqueue()
        job.claim()
        expire(job)
        sweep.rescue(FreeJob, "default")
        assert reloaded(job).status == "FAILED"

    def test_is_left_alone_while_its_lease_holds(self) -> None:
        job = FreeJob.enqueue()
        job.claim()
        assert sweep.rescue(FreeJob, "default") == 0
        assert reloaded(job).status == "PROCESSING"

    def test_can_not_be_recorded_while_it_waits_again(self) -> None:
        job = FifoJob.enqueue()
        job.claim()
        late = reloaded(job)
        expire(job)
        sweep.rescue(FifoJob, "default")
        assert not late.renew()
        assert not late.rest("PROCESSED", result=5)
        assert (reloaded(job).status, reloaded(job).result) == ("NEW", None)

    def test_can_not_be_recorded_while_somebody_else_runs_it(self) -> None:
        job = FifoJob.enqueue()
        job.claim()
        late = reloaded(job)
        expire(job)
        sweep.rescue(FifoJob, "default")
        assert reloaded(job).claim()
        assert not late.rest("PROCESSED", result=5)
        assert (reloaded(job).status, reloaded(job).result) == ("PROCESSING", None)

    def test_is_rescued_by_the_thousand(self) -> None:
        jobs = LaneJob.objects.bulk_create(LaneJob(number=number) for number in range(250))
        for job in jobs:
            job.claim()
        expire(*jobs)
        assert sweep.rescue(LaneJob, "default") == 250
        assert set(statuses(LaneJob)) == {"NEW"}


@pytest.mark.django_db
def test_jobs_that_were_claimed_and_not_begun_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        pass

    def process(self: Any) -> None:
        assert statuses(FreeJob)[1:] == ["PROCESSING"] * 4  # the batch
        raise Killed

    monkeypatch.setattr(FreeJob, "process", process)
    FreeJob.enqueue_many(FreeJob() for _ in range(5))
    with pytest.raises(Killed):
        run_pool(FreeJob, "default", kick_budget())
    assert statuses(FreeJob) == ["PROCESSING"] + ["NEW"] * 4
    assert set(FreeJob.objects.values_list("worker_deaths", "error_count")) == {(0, 0)}
