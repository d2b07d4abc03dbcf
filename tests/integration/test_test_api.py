"""What users get for their own tests."""

from __future__ import annotations

import unittest
from typing import Any

import pytest

from parviraptor_celery.test import Body, JobEntryFactory, QueueTestCase
from parviraptor_celery.test import make_test_case_for_all_queues as make_test_case
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
        with pytest.raises(AssertionError, match="not PROCESSED"):
            self.process_queue(FreeJob, [FreeJob(script="invalid")], 1)

    def test_bodies_are_returned_in_the_order_of_their_beginning(self) -> None:
        bodies = self.process_queue(FifoJob, [FifoJob(), FifoJob(), FifoJob()], 2)
        assert [body.pk for body in bodies] == sorted(body.pk for body in bodies)


@pytest.mark.parametrize(
    ("second", "complaint"), [((2, 0.5, 1.5), "overlap"), ((0, 1.0, 2.0), "ran after")]
)
def test_a_wrong_order_is_noticed(second: tuple[int, float, float], complaint: str) -> None:
    pk, begun, ended = second
    bodies = [Body(1, "lane", 0.0, 1.0), Body(pk, "lane", begun, ended)]
    with pytest.raises(AssertionError, match=complaint):
        QueueTestCase().assert_order(bodies)


def test_the_names_of_the_queues_and_static_fields_are_on_the_class() -> None:
    case = make_test_case(Entries, job_classes_to_ignore=_others(), maxDiff=None)
    assert set(case.queues) == {queue.__name__ for queue in COVERED}  # type: ignore[attr-defined]
    assert case.maxDiff is None
    assert issubclass(case, unittest.TestCase)


def test_a_missing_method_of_the_factory_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"create_lane_job\(\)"):
        JobEntryFactory().create(LaneJob)
