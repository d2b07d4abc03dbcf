"""What users get for their own tests."""

from __future__ import annotations

import threading
import unittest
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

from parviraptor_celery import test as kit
from parviraptor_celery.exceptions import NotANewJob
from parviraptor_celery.foreground import ForegroundWorker
from parviraptor_celery.test import Body, JobEntryFactory, QueueTestCase, run_queue, virtual_clock
from parviraptor_celery.test import make_test_case_for_all_queues as make_test_case
from tests import servers
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob

COVERED = (AtomicJob, FifoJob, FreeJob, LaneJob)


class Entries(JobEntryFactory):
    def create_lane_job(self) -> list[LaneJob]:
        return [LaneJob(number=at % 2) for at in range(6)]

    def create_fifo_job(self) -> list[FifoJob]:
        return [FifoJob() for _ in range(5)]

    def create_free_job(self) -> None:
        FreeJob.objects.bulk_create([FreeJob() for _ in range(5)])

    def create_atomic_job(self) -> list[AtomicJob]:
        return [AtomicJob(shop=shop) for shop in "abab"]


def _others() -> list[Any]:
    from parviraptor_celery import registry

    return [queue for queue in registry.all_queues() if queue not in COVERED]


class TestAllQueues(make_test_case(Entries, job_classes_to_ignore=_others())):  # type: ignore[misc]
    """Runs the four queues, with one worker and with eight."""


class TestProcessQueue(QueueTestCase):
    def test_jobs_that_fail_fail_the_test(self) -> None:
        with pytest.raises(AssertionError, match=r"(?s)not PROCESSED.*FAILED: .*nonsense"):
            self.process_queue(FreeJob, [FreeJob(script="invalid nonsense")], 1)

    def test_bodies_are_returned_in_the_order_of_their_beginning(self) -> None:
        bodies = self.process_queue(FifoJob, [FifoJob(), FifoJob(), FifoJob()], 2)
        assert [body.pk for body in bodies] == sorted(body.pk for body in bodies)

    def test_jobs_of_another_queue_are_refused(self) -> None:
        for create_jobs in (True, False):
            job = FreeJob() if create_jobs else FreeJob.enqueue()
            with pytest.raises(
                NotANewJob, match=r"testapp\.FifoJob takes jobs of it, not a FreeJob"
            ):
                self.process_queue(FifoJob, [job], 1, create_jobs)
        assert not FifoJob.objects.exists()

    def test_jobs_that_jobs_enqueue_are_run_too(self) -> None:
        for workers in (1, 3):
            bodies = self.process_queue(FifoJob, [FifoJob(script="enqueue enqueue x")], workers)
            assert len(bodies) == 3

    def test_a_job_that_was_ignored_ended_well_unless_the_test_says_otherwise(self) -> None:
        self.process_queue(FreeJob, [FreeJob(script="ignore me")], 1)
        with pytest.raises(AssertionError, match=r"is IGNORED: .*me"):
            self.process_queue(FreeJob, [FreeJob(script="ignore me")], 1, ends={"PROCESSED"})

    def test_a_test_may_want_jobs_to_fail(self) -> None:
        self.process_queue(FreeJob, [FreeJob(script="fail")], 1, ends={"FAILED"})

    def test_what_was_at_rest_before_does_not_count(self) -> None:
        FreeJob.objects.create(status="FAILED")
        self.process_queue(FreeJob, [FreeJob()], 1)

    def test_a_given_job_that_can_not_run_any_more_is_noticed(self) -> None:
        job = FreeJob.objects.create(status="PROCESSED")
        with pytest.raises(AssertionError, match="not every FreeJob was there to run"):
            self.process_queue(FreeJob, [job], 1, create_jobs=False)

    def test_a_temporary_failure_fails_the_test_at_once_and_tells_when_it_is_due(self) -> None:
        # The second one is due, but stands behind the first: nobody waits for it.
        jobs = [FifoJob(script="temporary away"), FifoJob()]
        with pytest.raises(AssertionError, match=r"is NEW, due 20.*away"):
            self.process_queue(FifoJob, jobs, 2)

    def test_with_a_clock_that_advances_it_is_tried_again(self) -> None:
        tries: list[int] = []

        def process(job: Any) -> None:
            tries.append(job.error_count)
            if job.error_count < 4 and job.script:
                job.raise_temporary_failure("not yet")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LaneJob, "process", process)
            for workers in (1, 2):
                jobs = [LaneJob(script="x"), LaneJob(), LaneJob(number=1)]
                bodies = self.process_queue(LaneJob, jobs, workers, advance_clock=True)
                assert sorted(tries) == [0, 0, 0, 1, 2, 3, 4]
                assert len(bodies) == len(tries)
                tries.clear()

    def test_a_clock_that_is_there_is_the_one_that_advances(self) -> None:
        with virtual_clock() as clock:
            jobs = [FreeJob(run_after=clock.now() + timedelta(days=2))]
            self.process_queue(FreeJob, jobs, 1, advance_clock=True)
            assert abs(clock.offset - timedelta(days=2)) < timedelta(minutes=1)

    def test_a_deferred_job_may_be_overtaken(self) -> None:
        def process(job: Any) -> None:
            if job.script and not job.error_count:
                job.script = "done"
                from parviraptor_celery.exceptions import DeferJob

                raise DeferJob("later")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FifoJob, "process", process)
            bodies = self.process_queue(FifoJob, [FifoJob(script="x"), FifoJob()], 1)
        first, second, again = bodies
        assert first.pk == again.pk < second.pk
        assert (first.is_deferred, again.is_deferred) == (True, False)

    def test_a_queue_that_never_ends_is_ended(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("parviraptor_celery.crews.PATIENCE_SECONDS", 0.3)
            patch.setattr(FreeJob, "process", lambda _: FreeJob.enqueue() and None)
            for workers in (1, 2):
                with pytest.raises(TimeoutError, match="no end to the FreeJobs"):
                    self.process_queue(FreeJob, [FreeJob()], workers)

    def test_there_is_one_worker_at_least(self) -> None:
        with pytest.raises(ValueError, match="number_of_threads is 0"):
            self.process_queue(FreeJob, [], 0)

    def test_threads_on_a_database_in_memory_are_refused_with_what_to_do(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connections["default"], "is_in_memory_db", lambda: True)
            with pytest.raises(ImproperlyConfigured, match=r'"NAME": "test.sqlite3"'):
                self.process_queue(FreeJob, [FreeJob()], 2)
            self.process_queue(FreeJob, [], 1)

    def test_workers_that_have_nothing_to_do_in_the_beginning_wait_for_the_others(self) -> None:
        both, in_vain = threading.Barrier(2, timeout=10), threading.Semaphore(0)
        run_in = ForegroundWorker.run_in

        def look(worker: ForegroundWorker, using: str) -> int:
            done = run_in(worker, using)
            if not done:
                in_vain.release()
            return done

        def process(job: Any) -> None:
            if job.script == "enqueue":
                for _ in range(2 * 3):  # both others have looked, more than once
                    assert in_vain.acquire(timeout=10)
                LaneJob.enqueue_many([LaneJob(number=1), LaneJob(number=2)])
            elif job.number:
                both.wait()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ForegroundWorker, "run_in", look)
            patch.setattr(LaneJob, "process", process)
            self.process_queue(LaneJob, [LaneJob(script="enqueue")], 3)


def test_threads_in_the_transaction_of_a_test_are_refused_with_what_to_do(using: str) -> None:
    with transaction.atomic(using=using):  # as each test of a plain TestCase is
        FreeJob.enqueue(using=using)
        with pytest.raises(TransactionManagementError, match="QueueTestCase"):
            run_queue(FreeJob, 4, using=using)
        assert run_queue(FreeJob, 1, using=using) == 1


class TestProcessQueueElsewhere(QueueTestCase):
    databases: ClassVar[Any] = {"default", "postgresql"}

    def test_the_jobs_may_be_in_another_database(self) -> None:
        servers.require("postgresql")
        bodies = self.process_queue(FifoJob, [FifoJob(), FifoJob()], 2, using="postgresql")
        assert {body.using for body in bodies} == {"postgresql"}


@pytest.mark.django_db(transaction=True)
def test_a_queue_can_be_run_without_a_test_case() -> None:
    LaneJob.enqueue_many([LaneJob(number=at) for at in range(4)])
    LaneJob.enqueue(script="fail")
    assert run_queue(LaneJob, 2) == 5
    assert run_queue(LaneJob) == 0


@pytest.mark.django_db(transaction=True)
def test_several_threads_are_refused_in_a_transaction_which_they_would_not_see(using: str) -> None:
    with transaction.atomic(using=using):
        FreeJob.enqueue(using=using)
        with pytest.raises(TransactionManagementError, match="TransactionTestCase"):
            run_queue(FreeJob, 2, using=using)
        assert run_queue(FreeJob, using=using) == 1


BODY = Body(5, "lane", 0.0, 1.0)


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (Body(6, "lane", 0.5, 1.5), "overlap"),
        (Body(4, "lane", 1.0, 2.0), "ran after"),
        (Body(6, "lane", 1.0, 2.0), None),
        (Body(5, "lane", 1.0, 2.0), None),  # tried again
        (Body(4, "other", 0.5, 1.5), None),
        (Body(4, None, 0.5, 1.5), None),
        (Body(4, "lane", 0.5, 1.5, "other"), None),
    ],
)
def test_a_wrong_order_is_noticed(second: Body, complaint: str | None) -> None:
    if complaint is None:
        QueueTestCase().assert_order([BODY, second])
        return
    with pytest.raises(AssertionError, match=complaint):
        QueueTestCase().assert_order([second, BODY])


def test_what_came_late_may_run_late_but_not_overlap() -> None:
    QueueTestCase().assert_order([BODY, Body(4, "lane", 1.0, 2.0)], late={4})
    with pytest.raises(AssertionError, match="overlap"):
        QueueTestCase().assert_order([BODY, Body(4, "lane", 0.5, 2.0)], late={4})


def test_an_earlier_job_that_waited_for_one_that_came_late_is_noticed() -> None:
    bodies = [BODY, Body(8, "lane", 1.0, 2.0), Body(6, "lane", 2.0, 3.0)]
    with pytest.raises(AssertionError, match="ran after"):
        QueueTestCase().assert_order(bodies, late=set())


def test_the_names_of_the_queues_and_static_fields_are_on_the_class() -> None:
    case = make_test_case(Entries, job_classes_to_ignore=_others(), maxDiff=None)
    as_defined = [model.__name__ for model in apps.get_models() if model in COVERED]
    assert case.queues == as_defined  # type: ignore[attr-defined]
    assert case.maxDiff is None
    assert issubclass(case, unittest.TestCase)


def test_a_missing_method_of_the_factory_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"create_lane_job\(\)"):
        JobEntryFactory().create(LaneJob)


def test_what_is_public_is_there() -> None:
    assert all(hasattr(kit, name) for name in kit.__all__)


@pytest.mark.django_db
class TestEntriesOfTwoQueuesWithOneName:
    def test_an_entry_of_another_queue_is_refused(self) -> None:
        class Mistaken(JobEntryFactory):
            def create_fifo_job(self) -> list[LaneJob]:
                return [LaneJob()]

        with pytest.raises(
            TypeError, match=r"wanted were those of testapp.FifoJob.*create_testapp"
        ):
            Mistaken().create(FifoJob)
        assert not FifoJob.objects.exists()

    def test_the_method_may_name_the_app(self) -> None:
        class Entries(JobEntryFactory):
            def create_fifo_job(self) -> list[FifoJob]:
                raise AssertionError("that of the app goes first")

            def create_testapp_fifo_job(self) -> list[FifoJob]:
                return [FifoJob()]

        Entries().create(FifoJob)
        assert FifoJob.objects.count() == 1
