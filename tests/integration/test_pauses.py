"""Pauses and cancelling: what is not to run is not claimed, whoever looks, and comes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import timezone

from parviraptor_celery import aliases, sweep
from parviraptor_celery.dispatch import JobLaneFeed, JobPoolFeed, run_lanes, run_pool
from parviraptor_celery.drains import Budget, Report, drain
from parviraptor_celery.exceptions import CanNotPause, IllegalTransition
from parviraptor_celery.models import AbstractJob, Pause
from tests.integration.threads import open_transaction
from tests.testapp.models import FifoJob, FreeJob, LaneJob

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
Kicks = list[tuple[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def kicks(monkeypatch: pytest.MonkeyPatch) -> Kicks:
    """These tests are the workers themselves, and see what is published."""
    sent: Kicks = []

    def kick(task: str, **arguments: Any) -> bool:
        sent.append((task, arguments))
        return True

    monkeypatch.setattr("parviraptor_celery.broker.kick", kick)
    return sent


def statuses(queue: type[AbstractJob], using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))


def work_off(queue: type[AbstractJob], using: str) -> int:
    """Run what may run, as workers do that were kicked for everything."""
    if queue.dependent_fields is None:
        return run_pool(queue, using, Budget.endless()).rows
    lanes = queue.rows(using).order_by("lane").values_list("lane", flat=True).distinct()
    return run_lanes(queue, using, list(lanes), Budget.endless()).rows


def kick_what_waits(queue: type[AbstractJob], using: str) -> None:
    """Do what a sweep does, without its tick, which is in another database."""
    if queue.dependent_fields is None:
        sweep.kick_waiting(queue, using)
    else:
        sweep.kick_lanes(queue, using, "")


def in_process(
    queue: type[AbstractJob], body: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "process", body)


QUEUES = pytest.mark.parametrize("queue", [LaneJob, FifoJob, FreeJob])


# Pauses


@QUEUES
def test_a_paused_queue_claims_nothing_until_it_is_resumed(using: str, queue: Any) -> None:
    queue.enqueue_many([queue(), queue(status="DEFERRED"), queue()], using=using)
    assert queue.pause(using=using, reason="wrong rates")

    assert work_off(queue, using) == 0
    assert statuses(queue, using) == ["NEW", "DEFERRED", "NEW"]

    assert queue.resume(using=using)
    assert work_off(queue, using) == 3
    assert not queue.resume(using=using)


@QUEUES
def test_a_paused_queue_claims_no_deferred_job_either(using: str, queue: Any) -> None:
    queue.rows(using).create(status="DEFERRED")
    queue.pause(using=using)
    assert work_off(queue, using) == 0
    queue.resume(using=using)
    assert work_off(queue, using) == 1


def test_a_paused_queue_holds_no_other(using: str) -> None:
    FifoJob.enqueue(using=using)
    FreeJob.enqueue(using=using)
    LaneJob.pause(using=using)
    assert work_off(FifoJob, using) + work_off(FreeJob, using) == 2


def test_a_paused_lane_waits_while_the_others_run(using: str) -> None:
    LaneJob.enqueue_many([LaneJob(shop=shop) for shop in "abab"], using=using)
    assert LaneJob.pause(using=using, shop="a", number=0)

    assert work_off(LaneJob, using) == 2
    assert statuses(LaneJob, using) == ["NEW", "PROCESSED", "NEW", "PROCESSED"]

    assert LaneJob.resume(using=using, shop="a", number=0)
    assert work_off(LaneJob, using) == 2


def test_a_job_pauses_and_resumes_its_own_lane(using: str) -> None:
    here, there = (LaneJob.enqueue(using=using, shop=shop) for shop in "ab")
    assert here.pause_lane("look at it first")
    assert not here.pause_lane("again")
    assert Pause.objects.using(using).get().reason == "again"
    assert work_off(LaneJob, using) == 1
    there.refresh_from_db()
    assert there.status == "PROCESSED"
    assert here.resume_lane()
    assert work_off(LaneJob, using) == 1


def test_a_lane_that_was_paused_by_itself_stays_so_when_its_queue_is_resumed(using: str) -> None:
    LaneJob.enqueue_many([LaneJob(shop=shop) for shop in "ab"], using=using)
    LaneJob.pause(using=using, shop="a", number=0)
    LaneJob.pause(using=using)
    LaneJob.resume(using=using)
    assert work_off(LaneJob, using) == 1
    assert statuses(LaneJob, using) == ["NEW", "PROCESSED"]


def test_a_pause_that_is_rolled_back_pauses_nothing(using: str) -> None:
    FreeJob.enqueue(using=using)
    with transaction.atomic(using=using):
        FreeJob.pause(using=using)
        transaction.set_rollback(True, using=using)
    assert work_off(FreeJob, using) == 1


@QUEUES
def test_a_pause_that_comes_while_a_job_runs_lets_no_successor_follow(
    using: str, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process(queue, lambda _: queue.pause(using=using), monkeypatch)
    queue.enqueue_many([queue() for _ in range(3)], using=using)
    report = Report()
    if queue.dependent_fields is None:  # one row is leased at a time, so none is left over
        drain(JobPoolFeed(queue.rows(using), 1, Budget.endless()), Budget.endless(), report)
        assert report.rows == 1
    else:
        assert work_off(queue, using) == 1
    assert statuses(queue, using) == ["PROCESSED", "NEW", "NEW"]


@pytest.mark.parametrize("queue", [LaneJob, FifoJob])
def test_of_a_pause_between_look_and_claim_one_job_may_run_and_no_other(
    using: str, queue: Any
) -> None:
    queue.enqueue_many([queue(), queue()], using=using)
    lane = queue.rows(using).first().lane

    class Feed(JobLaneFeed):
        is_first = False  # so that PostgreSQL looks and claims in two steps, too

        def candidate(self) -> Any:
            found = super().candidate()
            queue.pause(using=using)  # has committed before the claim begins
            return found

    report = Report()
    drain(Feed(queue.rows(using), lane), Budget.endless(), report)
    assert report.rows == 1
    assert statuses(queue, using) == ["PROCESSED", "NEW"]


def test_what_an_independent_queue_has_leased_already_may_run(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process(FreeJob, lambda _: FreeJob.pause(using=using), monkeypatch)
    FreeJob.enqueue_many([FreeJob() for _ in range(5)], using=using)
    drain(JobPoolFeed(FreeJob.rows(using), 2, Budget.endless()), Budget.endless(), Report())
    assert statuses(FreeJob, using) == ["PROCESSED"] * 2 + ["NEW"] * 3


@CONCURRENT
@QUEUES
def test_a_pause_that_is_not_committed_yet_holds_no_worker(using: str, queue: Any) -> None:
    queue.enqueue_many([queue(), queue()], using=using)
    with open_transaction(using, lambda: queue.pause(using=using)):
        assert work_off(queue, using) == 2
    queue.enqueue(using=using)
    assert work_off(queue, using) == 0


def test_dependents_of_a_paused_lane_do_not_fail_with_their_cause(using: str) -> None:
    FifoJob.enqueue_many([FifoJob(status="FAILED"), FifoJob()], using=using)
    FifoJob.pause(using=using)
    assert work_off(FifoJob, using) == 0
    assert statuses(FifoJob, using) == ["FAILED", "NEW"]
    FifoJob.resume(using=using)
    work_off(FifoJob, using)
    assert statuses(FifoJob, using) == ["FAILED", "FAILED"]


def test_a_sweep_rescues_jobs_of_a_paused_queue_and_kicks_none(using: str, kicks: Kicks) -> None:
    for queue in (LaneJob, FreeJob):
        queue.enqueue(using=using).claim()
        queue.rows(using).update(lease_until=timezone.now() - timedelta(minutes=1))
        queue.pause(using=using)
        kicks.clear()
        assert sweep.rescue(queue, using) == 1
        assert statuses(queue, using) == ["NEW"]
        kick_what_waits(queue, using)
        assert kicks == []
        queue.resume(using=using)
        kicks.clear()
        kick_what_waits(queue, using)
        assert len(kicks) == 1


def test_a_sweep_kicks_the_lanes_beside_a_paused_one(using: str, kicks: Kicks) -> None:
    here, there = (LaneJob.enqueue(using=using, shop=shop) for shop in "ab")
    here.pause_lane()
    kicks.clear()
    kick_what_waits(LaneJob, using)
    assert [arguments["lanes"] for _, arguments in kicks] == [[there.lane]]


def test_resuming_wakes_workers_after_the_commit(using: str, kicks: Kicks) -> None:
    lane = LaneJob.enqueue(using=using).lane
    FreeJob.enqueue_many([FreeJob(), FreeJob()], using=using)
    LaneJob.pause(using=using)
    LaneJob.pause(using=using, shop="a", number=0)
    FreeJob.pause(using=using)
    kicks.clear()
    with transaction.atomic(using=using):
        LaneJob.resume(using=using, shop="a", number=0)
        LaneJob.resume(using=using)
        FreeJob.resume(using=using)
        assert kicks == []
    process, dispatch = "parviraptor_celery.process_jobs", "parviraptor_celery.dispatch_jobs"
    lane_job = {"queue": "testapp.LaneJob", "using": using}
    assert kicks == [
        (process, {**lane_job, "lanes": [lane]}),
        (dispatch, lane_job),
        *[(process, {"queue": "testapp.FreeJob", "using": using})] * 2,
    ]


@CONCURRENT
def test_the_look_for_what_is_next_reads_no_pauses_of_other_lanes(using: str) -> None:
    job = LaneJob.enqueue(using=using)
    pauses = [Pause(queue="testapp.lanejob", lane=f"{at:032x}") for at in range(2000)]
    Pause.objects.using(using).bulk_create(pauses)
    assert rows_read(LaneJob.rows(using).filter(pk=job.pk).as_candidates(job.lane), using) < 20


def rows_read(rows: Any, using: str) -> int:
    """Return how many rows and index entries the database reads to answer ``rows``."""
    if connections[using].vendor == "postgresql":
        plan = rows.explain(analyze=True)
        assert "parviraptor_celery_pause" in plan
        found = re.findall(r"(?:Removed by Filter: |actual time=\S+ rows=)(\d+)", plan)
        return sum(map(int, found))
    with connections[using].cursor() as cursor:
        cursor.execute("FLUSH STATUS")
        list(rows)
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(count) for _, count in cursor.fetchall())


@pytest.fixture
def _no_pause_table(using: str) -> Any:
    aliases.look_again()
    with connections[using].schema_editor() as editor:
        editor.delete_model(Pause)
    yield
    with connections[using].schema_editor() as editor:
        editor.create_model(Pause)
    aliases.look_again()


@pytest.mark.usefixtures("_no_pause_table")
@QUEUES
def test_without_the_table_jobs_run_and_pause_says_what_to_do(using: str, queue: Any) -> None:
    queue.enqueue_many([queue(), queue(status="DEFERRED")], using=using)
    with pytest.raises(CanNotPause, match=f"migrate parviraptor_celery --database {using}"):
        queue.pause(using=using)
    assert not queue.resume(using=using)
    kick_what_waits(queue, using)
    assert work_off(queue, using) == 2


# Cancelling


@pytest.mark.parametrize("status", ["NEW", "DEFERRED"])
def test_a_waiting_job_that_is_cancelled_never_runs_and_its_lane_is_kicked(
    using: str, status: str, kicks: Kicks
) -> None:
    FifoJob.enqueue_many([FifoJob(status=status), FifoJob()], using=using)
    first = FifoJob.rows(using).first()
    kicks.clear()
    assert first.cancel()
    assert [arguments["lanes"] for _, arguments in kicks] == [[first.lane]]
    assert work_off(FifoJob, using) == 1
    assert statuses(FifoJob, using) == ["IGNORED", "PROCESSED"]


def test_a_key_is_free_again_when_its_job_is_cancelled(using: str) -> None:
    assert FreeJob.enqueue(using=using, unique_key="k").cancel()
    FreeJob.enqueue(using=using, unique_key="k")


def test_of_a_claim_and_a_cancellation_one_wins(using: str) -> None:
    job = FifoJob.enqueue(using=using)
    seen_by_worker, seen_by_person = (FifoJob.rows(using).get() for _ in range(2))
    assert seen_by_worker.claim()
    assert seen_by_person.cancel() is False
    assert statuses(FifoJob, using) == ["PROCESSING"]

    assert seen_by_worker.put_back()
    seen_by_worker, seen_by_person = (FifoJob.rows(using).get() for _ in range(2))
    assert seen_by_person.cancel()
    assert seen_by_worker.claim() is False
    job.refresh_from_db()
    assert (job.status, job.running_lane) == ("IGNORED", None)


@pytest.mark.parametrize("status", ["PROCESSED", "SQUASHED", "IGNORED", "FAILED"])
def test_what_does_not_wait_can_not_be_cancelled(using: str, status: str) -> None:
    job = FreeJob.rows(using).create(status=status)
    with pytest.raises(IllegalTransition, match=rf"is {status}; only what waits"):
        job.cancel()
    assert statuses(FreeJob, using) == [status]
