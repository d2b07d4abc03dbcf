"""Behaviour 1: the order of a group, one job at a time, and who was cut off."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from parviraptor_celery.exceptions import DeferJob
from parviraptor_celery.test import QueueTestCase, run_queue, virtual_clock
from tests.integration.queue_contract.common import APP, CONCURRENT, IN_ORDER, Bodies, statuses
from tests.integration.threads import at_once, open_transaction
from tests.testapp.models import FifoJob, FreeJob, LaneJob

pytestmark = pytest.mark.usefixtures("one_database", "celery")

PROCESS = "parviraptor_celery.process_jobs"


def elsewhere(*queues: Any) -> None:
    """Let another worker run what it finds of `queues`, and come back when it finds no more."""
    at_once(*[lambda queue=queue: run_queue(queue) for queue in queues])


@IN_ORDER
def test_behaviour_1_a_constraint_of_the_database_refuses_a_second_row_that_is_processing(
    queue: Any, using: str, bodies: Bodies
) -> None:
    first, second = queue.enqueue(), queue.enqueue()
    refused: list[int] = []

    def take_the_second_too(job: Any) -> None:
        if job.pk == second.pk:
            return
        taken = {"status": "PROCESSING", "lease_until": timezone.now(), "running_lane": job.lane}
        with pytest.raises(IntegrityError), transaction.atomic(using=using):
            queue.objects.filter(pk=second.pk).update(**taken)
        refused.append(job.pk)

    bodies(queue, take_the_second_too)
    run_queue(queue)
    assert refused == [first.pk]
    assert statuses(queue) == ["PROCESSED"] * 2


def test_behaviour_1_while_a_job_runs_other_workers_run_other_groups_only(bodies: Bodies) -> None:
    a1, a2, b1 = LaneJob.enqueue(shop="a"), LaneJob.enqueue(shop="a"), LaneJob.enqueue(shop="b")
    seen: list[Any] = []

    def look(job: Any) -> None:
        if job.pk == a1.pk:
            elsewhere(LaneJob, LaneJob)
            seen.extend(statuses(LaneJob))

    ran = bodies(LaneJob, look)
    run_queue_of_first_lane(a1)
    assert seen == ["PROCESSING", "NEW", "PROCESSED"]
    assert ran == [a1.pk, b1.pk, a2.pk]


def run_queue_of_first_lane(job: Any) -> None:
    """Let a worker begin with the group of `job`, as a kick for it does."""
    about = {"queue": job._meta.label, "using": job._state.db, "lanes": [job.lane]}
    APP.tasks[PROCESS](**about)


@IN_ORDER
@pytest.mark.parametrize("number_of_threads", [1, 4])
def test_behaviour_1_the_order_is_by_id(queue: Any, number_of_threads: int) -> None:
    jobs = [queue() for _ in range(8)]
    ran = QueueTestCase().process_queue(queue, jobs, number_of_threads)
    assert [body.pk for body in ran] == sorted(body.pk for body in ran)
    for before, after in pairwise(ran):
        assert before.ended <= after.begun


@CONCURRENT
@IN_ORDER
def test_behaviour_1_a_lower_id_that_commits_late_runs_next(
    queue: Any, using: str, bodies: Bodies
) -> None:
    with open_transaction(using, queue.enqueue) as late:
        second, third = queue.enqueue(), queue.enqueue()

        def let_it_commit(job: Any) -> None:
            if job.pk == second.pk:
                late.committed()

        ran = bodies(queue, let_it_commit)
        run_queue(queue)
    first = queue.objects.order_by("pk").first()
    assert first.pk < second.pk
    assert ran == [second.pk, first.pk, third.pk]


@pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
@pytest.mark.parametrize("end", ["returns", "fails", "temporarily", "defers", "hands back"])
def test_behaviour_1_who_was_cut_off_for_longer_than_its_lease_records_nothing(
    queue: Any, end: str, bodies: Bodies
) -> None:
    job = queue.enqueue()
    between: list[Any] = []

    def be_cut_off(running: Any) -> None:
        running.result = running.attempt
        if running.attempt == 1:
            clock.advance(minutes=2)
            elsewhere(queue)
            between.extend(queue.objects.values())
            _end(running, end)

    ran = bodies(queue, be_cut_off)
    with virtual_clock() as clock:
        run_queue(queue)
    assert ran == [job.pk] * 2, "the bodies overlapped"
    assert (between[0]["status"], between[0]["result"]) == ("PROCESSED", 2)
    assert list(queue.objects.values()) == between


def _end(job: Any, how: str) -> None:
    match how:
        case "fails":
            raise ValueError
        case "temporarily":
            job.raise_temporary_failure("away")
        case "defers":
            raise DeferJob
        case "hands back":
            assert not job.update_job_for_being_resumed()
