"""Making queues and putting jobs into them."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import models, transaction
from django.db.utils import ConnectionDoesNotExist
from django.test.utils import isolate_apps
from django.utils import timezone

from parviraptor_celery.exceptions import (
    DuplicateUniqueKey,
    InvalidDependentField,
    InvalidJobOption,
    UnknownField,
)
from parviraptor_celery.models import AbstractJob, AbstractJobFactory, BackoffStrategy
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob, TypedJob
from tests.unit.jobs import reloaded, run_one, work_off

make_base_class = AbstractJobFactory.make_base_class


class TestMakeBaseClass:
    @pytest.mark.parametrize("fields", [None, [], ["shop", "product"]])
    def test_takes_nothing_an_empty_list_or_names(self, fields: list[str] | None) -> None:
        base = make_base_class(dependent_fields=fields)
        assert base._meta.abstract
        assert base.dependent_fields == fields

    def test_wants_to_be_told_explicitly(self) -> None:
        with pytest.raises(TypeError, match="dependent_fields"):
            make_base_class()  # type: ignore[call-arg]

    @pytest.mark.parametrize("given", ["shop", 5, [5]])
    def test_refuses_what_are_not_names(self, given: Any) -> None:
        with pytest.raises(InvalidDependentField):
            make_base_class(dependent_fields=given)

    def test_keeps_its_own_copy_of_the_names(self) -> None:
        names = ["shop"]
        base = make_base_class(dependent_fields=names)
        names.append("product")
        assert base.dependent_fields == ["shop"]

    @isolate_apps("tests.testapp")
    def test_a_job_without_a_body_fails_and_says_so(self) -> None:
        class Empty(make_base_class(dependent_fields=None)):  # type: ignore[misc]
            class Meta:
                app_label = "testapp"

        with pytest.raises(NotImplementedError, match="Empty has no process"):
            Empty().process()


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("BACKOFF_STRATEGY", BackoffStrategy.EXPONENTIAL),
        ("BACKOFF_STEP_MINUTES", 2),
        ("TEMPORARY_FAILURE_THRESHOLD", 19),
        ("DEFERRED_RETRY_THRESHOLD", 19),
        ("MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", 7),
        ("MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN", 30),
        ("MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN", 960),
    ],
)
def test_a_queue_has_its_defaults(name: str, default: Any) -> None:
    assert getattr(AtomicJob, name) == default


@pytest.mark.parametrize("queue", [FreeJob, FifoJob, LaneJob])
def test_a_queue_has_the_public_fields(queue: type[AbstractJob]) -> None:
    promised = (
        "creation_date modification_date status error_count error_message run_after lease_until "
        "attempt lane running_lane"
    )
    assert set(promised.split()) <= {field.name for field in queue._meta.get_fields()}


@pytest.mark.django_db
def test_the_migrations_are_complete() -> None:
    apps = ["parviraptor_celery", "jaiminho_celery"]
    call_command("makemigrations", *apps, check=True, dry_run=True, verbosity=0)


@pytest.mark.django_db
class TestEnqueue:
    def test_returns_the_row_that_it_wrote(self) -> None:
        job = LaneJob.enqueue(shop="x", number=3, script="later")
        row = LaneJob.objects.get()
        assert (row.pk, row.shop, row.number, row.script) == (job.pk, "x", 3, "later")
        assert (row.status, row.error_count, row.attempt) == ("NEW", 0, 0)
        assert (row.run_after, row.priority, row.unique_key) == (None, 0, None)

    def test_takes_a_moment_before_which_the_job_does_not_run(self) -> None:
        moment = datetime(2999, 1, 1, tzinfo=UTC)
        job = FreeJob.enqueue(run_after=moment)
        assert reloaded(job).run_after == moment
        assert work_off(FreeJob) == 0

    def test_takes_a_moment_that_has_passed(self) -> None:
        FreeJob.enqueue(run_after=timezone.now() - timedelta(seconds=1))
        assert work_off(FreeJob) == 1

    def test_takes_a_pause(self) -> None:
        before = timezone.now()
        job = FreeJob.enqueue(run_after=timedelta(hours=2))
        after = timezone.now()
        assert before <= reloaded(job).run_after - timedelta(hours=2) <= after

    @pytest.mark.parametrize(
        ("columns", "error"),
        [
            pytest.param({"scirpt": "typo"}, UnknownField, id="an unknown field"),
            pytest.param({"run_after": "tomorrow"}, InvalidJobOption, id="a due time in words"),
            pytest.param({"using": "nowhere"}, ConnectionDoesNotExist, id="an unknown alias"),
            pytest.param({"result": "much"}, ValueError, id="a wrong value"),
        ],
    )
    def test_refuses_what_is_wrong_and_writes_nothing(
        self, columns: dict[str, Any], error: type[Exception]
    ) -> None:
        with pytest.raises(error), transaction.atomic():
            FreeJob.enqueue(**columns)
        assert not FreeJob.objects.exists()

    def test_names_the_unknown_field_and_those_there_are(self) -> None:
        with pytest.raises(UnknownField) as caught:
            LaneJob.enqueue(shopp="a")
        assert "shopp" in str(caught.value)
        for name in ("testapp.LaneJob", "shop", "number", "script", "result"):
            assert name in str(caught.value)

    def test_and_an_outer_rollback_leaves_nothing(self) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            FreeJob.enqueue()
            raise ZeroDivisionError
        assert not FreeJob.objects.exists()

    @pytest.mark.parametrize("queue", [FreeJob, FifoJob])
    def test_create_and_bulk_create_are_as_good(self, queue: Any) -> None:
        queue.objects.create()
        queue.objects.bulk_create([queue(), queue()])
        assert work_off(queue) == 3

    def test_takes_the_columns_of_a_foreign_key_and_its_key(self) -> None:
        assert TypedJob.enqueue(note_id=None, text="x").lane == TypedJob.enqueue(text="x").lane


@pytest.mark.django_db
class TestAUniqueKey:
    def test_is_carried_by_one_waiting_job(self) -> None:
        FreeJob.enqueue(unique_key="nightly")
        with pytest.raises(DuplicateUniqueKey, match="'nightly'"):
            FreeJob.enqueue(unique_key="nightly", script="second")
        assert FreeJob.objects.count() == 1

    def test_leaves_the_callers_transaction_usable(self) -> None:
        FreeJob.enqueue(unique_key="nightly")
        with transaction.atomic():
            with pytest.raises(DuplicateUniqueKey):
                FreeJob.enqueue(unique_key="nightly")
            FreeJob.enqueue(unique_key="weekly")
        assert FreeJob.objects.count() == 2

    def test_is_a_matter_of_the_queue(self) -> None:
        FreeJob.enqueue(unique_key="nightly")
        FifoJob.enqueue(unique_key="nightly")

    @pytest.mark.parametrize("queue", [FreeJob, FifoJob, AtomicJob])
    def test_is_free_again_while_its_job_runs(
        self, queue: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def process(self: Any) -> None:
            if not queue.objects.filter(script="next").exists():
                queue.enqueue(unique_key="nightly", script="next")

        monkeypatch.setattr(queue, "process", process)
        first = queue.enqueue(unique_key="nightly")
        run_one(queue)
        assert (reloaded(first).status, reloaded(first).error_message) == ("PROCESSED", "")
        assert queue.objects.get(script="next").unique_key == "nightly"

    def test_is_free_again_once_its_job_failed_with_another(self) -> None:
        FifoJob.enqueue(script="fail")
        FifoJob.enqueue(unique_key="nightly")
        work_off(FifoJob)
        FifoJob.enqueue(unique_key="nightly")

    def test_is_refused_by_enqueue_many_too(self) -> None:
        FreeJob.enqueue(unique_key="nightly")
        jobs = [FreeJob(), FreeJob(unique_key="nightly")]
        with pytest.raises(DuplicateUniqueKey), transaction.atomic():
            FreeJob.enqueue_many(jobs)
        assert FreeJob.objects.count() == 1


@pytest.mark.django_db
class TestEnqueueMany:
    @pytest.mark.parametrize("queue", [FreeJob, FifoJob])
    def test_writes_all_in_order(self, queue: Any) -> None:
        jobs = queue.enqueue_many(queue(script=f"job {n}") for n in range(5))
        assert len(jobs) == 5
        scripts = list(queue.objects.order_by("id").values_list("script", flat=True))
        assert scripts == [f"job {n}" for n in range(5)]
        assert work_off(queue) == 5

    def test_of_nothing_writes_nothing(self) -> None:
        assert FreeJob.enqueue_many([]) == []

    def test_refuses_jobs_of_another_queue(self) -> None:
        with pytest.raises(TypeError, match="FifoJob"):
            FreeJob.enqueue_many([FreeJob(), FifoJob()])
        assert not FreeJob.objects.exists()
        assert not FifoJob.objects.exists()


@pytest.mark.django_db
class TestHandingBack:
    def test_a_running_job_costs_nothing(self) -> None:
        job = FifoJob.enqueue()
        assert job.claim()
        assert job.update_job_for_being_resumed()
        row = reloaded(job)
        assert (row.status, row.error_count, row.worker_deaths) == ("NEW", 0, 0)
        assert (row.lease_until, row.running_lane, row.run_after) == (None, None, None)

    def test_takes_the_alias_as_the_seed_does(self) -> None:
        job = FifoJob.enqueue()
        job.claim()
        assert job.update_job_for_being_resumed("default")
        assert reloaded(job).status == "NEW"

    def test_a_job_that_somebody_else_has_changes_nothing(self) -> None:
        job = FifoJob.enqueue()
        job.claim()
        FifoJob.objects.update(attempt=models.F("attempt") + 1)
        assert not job.update_job_for_being_resumed()
        assert reloaded(job).status == "PROCESSING"


@pytest.mark.django_db
def test_a_claim_counts_the_attempt_and_holds_a_lease() -> None:
    job = FifoJob.enqueue()
    stale = reloaded(job)
    assert job.claim()
    row = reloaded(job)
    assert (row.status, row.attempt, row.running_lane) == ("PROCESSING", 1, row.lane)
    assert row.lease_until - row.modification_date == timedelta(seconds=60)
    assert not stale.claim()
    assert reloaded(job).attempt == 1


@pytest.mark.django_db
def test_a_job_that_is_told_to_stop_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(FreeJob, "process", lambda self: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(FreeJob, "on_job_terminated", lambda self: told.append(self.pk))
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    job = FreeJob.enqueue()
    try:
        call_command("process_queue", "testapp", "FreeJob")
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert told == [job.pk]
    assert reloaded(job).status == "PROCESSED"


@pytest.mark.django_db
class TestSavingAnObjectThatWasReadBeforeItsJobRan:
    def test_writes_the_users_columns_and_leaves_the_outcome_alone(self) -> None:
        stale = FreeJob.enqueue()
        FreeJob.rows("default").update(status="PROCESSED", attempt=1, error_count=3)
        stale.result = 7
        stale.save()
        now = FreeJob.objects.get()
        assert (now.status, now.attempt, now.error_count, now.result) == ("PROCESSED", 1, 3, 7)

    def test_writes_what_a_person_changed_on_it(self) -> None:
        FreeJob.objects.create(status="FAILED", error_message="no")
        job = FreeJob.objects.get()
        job.status, job.error_message = "NEW", ""
        job.save()
        now = FreeJob.objects.get()
        assert (now.status, now.error_message) == ("NEW", "")

    @pytest.mark.parametrize("know", ["refresh_from_db", "retry"])
    def test_what_the_object_learned_since_is_no_change_by_hand(self, know: str) -> None:
        job = FreeJob.objects.create()
        FreeJob.rows("default").update(status="FAILED")
        job.refresh_from_db()
        getattr(job, know)()
        FreeJob.rows("default").update(status="PROCESSED")
        job.save()
        assert FreeJob.objects.get().status == "PROCESSED"
