"""Who runs when: order, priority, due times, failed causes and their dependents."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from parviraptor_celery.exceptions import CauseStillFailed, DeferJob, IllegalTransition
from parviraptor_celery.models import AbstractJob
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob
from tests.unit.jobs import let_be_due, reloaded, run_one, statuses, work_off

pytestmark = pytest.mark.django_db

ORDERED = pytest.mark.parametrize("queue", [FifoJob, LaneJob, AtomicJob])
REASON = "dependent jobs failed"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the jobs that ran, in order."""
    order: list[int] = []

    def noted(process: Any) -> Any:
        def process_noted(self: AbstractJob) -> None:
            order.append(self.pk)
            process(self)

        return process_noted

    for queue in (FifoJob, LaneJob, AtomicJob, FreeJob):
        monkeypatch.setattr(queue, "process", noted(queue.process))
    return order


class TestOrder:
    @ORDERED
    def test_a_group_runs_by_id(self, queue: Any, ran: list[int]) -> None:
        jobs = [queue.enqueue() for _ in range(4)]
        work_off(queue)
        assert ran == [job.pk for job in jobs]

    def test_a_lower_id_that_comes_late_runs_next(self, ran: list[int]) -> None:
        first, last = FifoJob.enqueue(), FifoJob.enqueue()
        run_one(FifoJob)
        FifoJob.objects.filter(pk=last.pk).delete()
        late = FifoJob.objects.create(pk=last.pk + 5)
        later = FifoJob.objects.create(pk=last.pk + 3)
        work_off(FifoJob)
        assert ran == [first.pk, later.pk, late.pk]

    @ORDERED
    def test_a_group_waits_for_its_head(self, queue: Any, ran: list[int]) -> None:
        head = queue.enqueue(script="temporary away")
        queue.enqueue()
        work_off(queue)
        work_off(queue)
        assert ran == [head.pk]

    def test_groups_do_not_wait_for_each_other(self, ran: list[int]) -> None:
        LaneJob.enqueue(shop="a", script="temporary away")
        LaneJob.enqueue(shop="b", script="fail for good")
        job = LaneJob.enqueue(shop="a", number=1)
        work_off(LaneJob)
        assert reloaded(job).status == "PROCESSED"

    def test_a_job_with_a_due_time_holds_its_group_until_then(self, ran: list[int]) -> None:
        FifoJob.enqueue(run_after=timedelta(hours=1))
        FifoJob.enqueue()
        assert work_off(FifoJob) == 0
        let_be_due(FifoJob)
        assert work_off(FifoJob) == 2

    def test_the_most_urgent_independent_job_runs_first(self, ran: list[int]) -> None:
        jobs = [FreeJob.enqueue(priority=priority) for priority in (0, -5, 7, 0, 7)]
        work_off(FreeJob)
        assert ran == [jobs[at].pk for at in (2, 4, 0, 3, 1)]

    def test_independent_jobs_do_not_wait_for_each_other(self, ran: list[int]) -> None:
        FreeJob.enqueue(script="fail")
        FreeJob.enqueue(run_after=timezone.now() + timedelta(hours=1))
        FreeJob.enqueue()
        work_off(FreeJob)
        assert statuses(FreeJob) == ["FAILED", "NEW", "PROCESSED"]

    def test_an_ignored_job_does_not_hold_its_group(self) -> None:
        FifoJob.enqueue(script="ignore")
        FifoJob.enqueue()
        work_off(FifoJob)
        assert statuses(FifoJob) == ["IGNORED", "PROCESSED"]

    def test_more_blocked_groups_than_a_sweep_looks_at_do_not_hide_the_next(
        self, settings: Any
    ) -> None:
        settings.PARVIRAPTOR_CONFIG = {"SWEEP_LANES": 2}
        for number in range(4):
            LaneJob.enqueue(number=number, run_after=timedelta(hours=1))
        last = LaneJob.objects.order_by("lane").last()
        LaneJob.objects.filter(pk=last.pk).update(run_after=None)
        work_off(LaneJob)
        work_off(LaneJob)
        assert reloaded(last).status == "PROCESSED"


class TestDeferredJobs:
    @pytest.fixture(autouse=True)
    def defer_once(self, monkeypatch: pytest.MonkeyPatch, ran: list[int]) -> None:
        def process(self: Any) -> None:
            ran.append(self.pk)
            if self.script == "later" and self.error_count == 0:
                raise DeferJob

        for queue in (FifoJob, LaneJob, FreeJob):
            monkeypatch.setattr(queue, "process", process)

    @pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
    def test_run_after_all_due_jobs_of_their_group(self, queue: Any, ran: list[int]) -> None:
        one, two, three = (queue.enqueue(script=script) for script in ("later", "later", ""))
        for _ in range(5):
            run_one(queue)
        assert ran == [one.pk, two.pk, three.pk, one.pk, two.pk]

    @pytest.mark.parametrize("queue", [FifoJob, FreeJob])
    def test_do_not_wait_for_jobs_that_are_not_due(self, queue: Any, ran: list[int]) -> None:
        job = queue.enqueue(script="later")
        queue.enqueue(run_after=timedelta(hours=1))
        work_off(queue)
        assert ran == [job.pk, job.pk]
        assert statuses(queue) == ["PROCESSED", "NEW"]

    def test_step_behind_newcomers(self, ran: list[int]) -> None:
        deferred = FifoJob.enqueue(script="later")
        run_one(FifoJob)
        newcomer = FifoJob.enqueue()
        work_off(FifoJob)
        assert ran == [deferred.pk, newcomer.pk, deferred.pk]

    def test_of_other_groups_are_not_waited_for(self, ran: list[int]) -> None:
        LaneJob.enqueue(shop="b", run_after=timedelta(hours=1))
        job = LaneJob.enqueue(shop="a", script="later")
        work_off(LaneJob)
        assert ran == [job.pk, job.pk]


class TestAFailedJob:
    @ORDERED
    def test_fails_those_who_wait_behind_it(self, queue: Any, ran: list[int]) -> None:
        cause, *behind = (queue.enqueue(script=script) for script in ("fail", "", "temporary x"))
        work_off(queue)
        assert ran == [cause.pk]
        for job in behind:
            row = reloaded(job)
            assert (row.status, row.error_message) == ("FAILED", REASON)
            assert (row.failed_by, row.error_count) == (cause.pk, 0)
        assert reloaded(cause).failed_by is None

    def test_fails_newcomers_too(self, ran: list[int]) -> None:
        cause = FifoJob.enqueue(script="fail")
        work_off(FifoJob)
        newcomer = FifoJob.enqueue()
        work_off(FifoJob)
        assert reloaded(newcomer).status == "FAILED"
        assert reloaded(newcomer).failed_by == cause.pk

    def test_fails_its_deferred_dependents(self) -> None:
        cause = FifoJob.objects.create(status="FAILED")
        deferred = FifoJob.objects.create(status="DEFERRED")
        work_off(FifoJob)
        assert reloaded(deferred).failed_by == cause.pk

    def test_fails_a_dependent_that_is_not_due_yet(self) -> None:
        FifoJob.enqueue(script="fail")
        later = FifoJob.enqueue(run_after=timedelta(hours=1))
        now = FifoJob.enqueue()
        work_off(FifoJob)
        work_off(FifoJob)
        assert (reloaded(later).status, reloaded(now).status) == ("FAILED", "FAILED")

    def test_fails_more_dependents_than_one_statement_takes(self) -> None:
        FifoJob.enqueue(script="fail")
        FifoJob.enqueue_many(FifoJob() for _ in range(501))
        work_off(FifoJob)
        assert set(statuses(FifoJob)) == {"FAILED"}

    def test_leaves_other_groups_alone(self) -> None:
        LaneJob.enqueue(shop="a", script="fail")
        other = LaneJob.enqueue(shop="b")
        work_off(LaneJob)
        assert reloaded(other).status == "PROCESSED"

    def test_leaves_earlier_jobs_alone(self) -> None:
        earlier = FifoJob.objects.create()
        FifoJob.objects.create(status="FAILED")
        later = FifoJob.objects.create()
        work_off(FifoJob)
        assert (reloaded(earlier).status, reloaded(later).status) == ("PROCESSED", "FAILED")

    @pytest.mark.parametrize("status", ["PROCESSED", "SQUASHED", "IGNORED"])
    def test_never_rewrites_what_is_final(self, status: str) -> None:
        cause = FifoJob.enqueue(script="fail")
        final = FifoJob.objects.create(status=status, error_message="as it was")
        FifoJob.enqueue()
        work_off(FifoJob)
        cause.refresh_from_db()
        cause.retry()
        row = reloaded(final)
        assert (row.status, row.error_message) == (status, "as it was")
        assert row.modification_date == final.modification_date

    @pytest.mark.parametrize("decision", ["ignored", "deleted"])
    def test_lets_newcomers_run_once_it_is(self, decision: str) -> None:
        cause = FifoJob.enqueue(script="fail")
        work_off(FifoJob)
        if decision == "ignored":
            assert reloaded(cause).ignore()
        else:
            cause.delete()
        newcomer = FifoJob.enqueue()
        work_off(FifoJob)
        assert reloaded(newcomer).status == "PROCESSED"


class TestRetry:
    @pytest.fixture
    def failed(self, ran: list[int]) -> list[FifoJob]:
        jobs = [FifoJob.enqueue(script=script) for script in ("fail", "", "")]
        work_off(FifoJob)
        ran.clear()
        assert statuses(FifoJob) == ["FAILED"] * 3
        return [reloaded(job) for job in jobs]

    def test_brings_the_dependents_back_in_order(
        self, failed: list[FifoJob], ran: list[int]
    ) -> None:
        FifoJob.objects.update(script="")
        assert failed[0].retry() == 3
        assert statuses(FifoJob) == ["NEW"] * 3
        work_off(FifoJob)
        assert ran == [job.pk for job in failed]
        assert statuses(FifoJob) == ["PROCESSED"] * 3

    def test_forgets_the_errors(self, failed: list[FifoJob]) -> None:
        FifoJob.objects.update(error_count=4, worker_deaths=2)
        failed[0].retry()
        for job in failed:
            row = reloaded(job)
            assert (row.error_count, row.error_message) == (0, "")
            assert (row.error_traceback, row.failed_by) == ("", None)
        assert reloaded(failed[0]).worker_deaths == 0

    def test_of_a_cause_that_fails_again_fails_them_again(self, failed: list[FifoJob]) -> None:
        failed[0].retry()
        work_off(FifoJob)
        assert [reloaded(job).failed_by for job in failed] == [None, failed[0].pk, failed[0].pk]

    def test_of_a_dependent_before_its_cause_is_refused(self, failed: list[FifoJob]) -> None:
        with pytest.raises(CauseStillFailed, match=f"job {failed[0].pk}"):
            failed[2].retry()
        assert statuses(FifoJob) == ["FAILED"] * 3

    def test_of_a_dependent_is_allowed_once_its_cause_is_ignored(
        self, failed: list[FifoJob]
    ) -> None:
        failed[0].ignore()
        assert failed[2].retry() == 1
        work_off(FifoJob)
        assert statuses(FifoJob) == ["IGNORED", "FAILED", "PROCESSED"]

    def test_leaves_jobs_alone_that_failed_for_another_reason(self, failed: list[FifoJob]) -> None:
        other = LaneJob.enqueue(script="fail")
        work_off(LaneJob)
        failed[0].retry()
        assert reloaded(other).status == "FAILED"

    @pytest.mark.parametrize("status", ["NEW", "PROCESSED", "SQUASHED", "IGNORED", "DEFERRED"])
    @pytest.mark.parametrize("verb", ["retry", "ignore"])
    def test_and_ignore_are_for_failed_jobs_only(self, status: str, verb: str) -> None:
        job = FreeJob.objects.create(status=status)
        with pytest.raises(IllegalTransition, match=status):
            getattr(job, verb)()
        assert reloaded(job).status == status

    def test_by_a_stale_instance_changes_nothing(self, failed: list[FifoJob]) -> None:
        stale = reloaded(failed[0])
        FifoJob.objects.update(script="")
        failed[0].retry()
        work_off(FifoJob)
        assert stale.retry() == 0
        assert statuses(FifoJob) == ["PROCESSED"] * 3
