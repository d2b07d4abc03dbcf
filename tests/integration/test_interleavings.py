"""Forced interleavings: the one order of events that a missing line would not survive.

A stress does not notice when the look after the commit is taken out; these do. They hold a worker
by a lock of the database, or do something before each of its statements in turn, whatever they are.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from parviraptor_celery import execution, sweep
from parviraptor_celery.clock import from_now
from parviraptor_celery.dispatch import JobLaneFeed, JobPoolFeed, kick_budget, run_lanes
from parviraptor_celery.drains import Budget
from parviraptor_celery.exceptions import DeferJob, IgnoreJob, LeaseLost, UnprocessableJob
from parviraptor_celery.pace import Pace
from parviraptor_celery.test import virtual_clock
from tests.faults.steps import before_step
from tests.integration.test_lane_races import in_a_thread, let_them_meet, somebody_waits_for_a_lock
from tests.integration.threads import at_once, open_transaction
from tests.supervision import processes
from tests.testapp.models import FifoJob, FreeJob, Note

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
MOST_STEPS = 40


@pytest.fixture(autouse=True)
def kicks(monkeypatch: pytest.MonkeyPatch) -> list[list[str] | None]:
    """The lanes for which a kick was sent. These tests are the workers themselves."""
    sent: list[list[str] | None] = []

    def kick(*_: Any, lanes: list[str] | None = None, **__: Any) -> bool:
        sent.append(lanes)
        return True

    monkeypatch.setattr("parviraptor_celery.broker.kick", kick)
    return sent


def statuses(queue: Any, using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))


def elsewhere(body: Callable[[], Any]) -> Any:
    """Run ``body`` in another thread, with a connection of its own, and wait for it."""
    (result,) = at_once(body)
    return result


class TestTheLookAfterTheCommit:
    """A job whose kick saw its lane running is not stranded when that run ends unseen by it."""

    @CONCURRENT
    def test_a_job_that_commits_while_the_settlement_is_in_flight_is_run(
        self, using: str, kicks: list[list[str] | None]
    ) -> None:
        job = FifoJob.enqueue(using=using)
        kicks.clear()

        with settlement_in_flight(job):
            # What the worker's statements see was decided before this.
            elsewhere(lambda: FifoJob.enqueue(using=using).pk)
            assert kicks == [], "whoever runs the lane looks again: no kick is needed"
            assert statuses(FifoJob, using) == ["PROCESSING", "NEW"]

        assert statuses(FifoJob, using) == ["PROCESSED", "PROCESSED"]

    def test_a_job_that_commits_before_any_step_of_the_settlement_is_run_or_kicked(
        self, using: str, kicks: list[list[str] | None]
    ) -> None:
        for number in range(1, MOST_STEPS):
            FifoJob.rows(using).delete()
            job = FifoJob.enqueue(using=using)
            kicks.clear()
            with before_step(number, using, lambda: enqueue_unless_sqlite_waits(using)) as steps:
                run_counting_from_the_end_of_the_body(job, steps)
            left = statuses(FifoJob, using)
            assert set(left) == {"PROCESSED"} or kicks, f"stranded before step {number}: {left}"
            if not steps.was_reached:
                return
        pytest.fail("the worker takes more steps than this test can tell apart")


class TestTheFence:
    """A worker whose lease ran out, and whose job another has, can record nothing any more."""

    @pytest.mark.parametrize(
        "ending",
        [
            lambda job: None,
            lambda job: setattr(job, "result", 99),
            lambda job: job.raise_temporary_failure("away"),
            lambda job: raises(DeferJob("later")),
            lambda job: raises(IgnoreJob("never")),
            lambda job: raises(UnprocessableJob("not now")),
            lambda job: raises(ValueError("wrong")),
        ],
        ids=["ends", "sets-fields", "fails-for-now", "defers", "ignores", "steps-back", "fails"],
    )
    def test_no_outcome_of_its_body_is_recorded(
        self, using: str, ending: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stale = claimed(using)
        monkeypatch.setattr(FifoJob, "process", lambda job: take_away(job) and ending(job))
        run = execution.run(stale)
        before = all_columns(FifoJob, using)
        assert run.settle() is False
        assert all_columns(FifoJob, using) == before

    @pytest.mark.parametrize(
        "verb",
        [
            lambda job: job.rest("PROCESSED"),
            lambda job: job.rest("FAILED", error_message="wrong"),
            lambda job: job.put_back(),
            lambda job: job.put_back(run_after=from_now(60), error_count=9),
            lambda job: job.update_job_for_being_resumed(),
            lambda job: job.renew(),
            lambda job: job.keep_lease(),
            lambda job: job.begin(),
        ],
        ids=["rest", "fail", "put_back", "pause", "resume", "renew", "keep_lease", "begin"],
    )
    def test_no_verb_does_anything(self, using: str, verb: Callable[[Any], bool]) -> None:
        stale = claimed(using)
        take_away(stale)
        before = all_columns(FifoJob, using)
        assert verb(stale) is False
        assert all_columns(FifoJob, using) == before

    @pytest.mark.parametrize("names", [None, ["result"], ["status", "result"]])
    def test_saving_it_in_the_body_is_refused(self, using: str, names: list[str] | None) -> None:
        stale = claimed(using)
        take_away(stale)
        before = all_columns(FifoJob, using)
        stale.result = 99
        with execution._running_here(stale, {}), pytest.raises(LeaseLost):
            stale.save(update_fields=names)
        assert all_columns(FifoJob, using) == before

    def test_a_stale_claim_takes_nothing_from_the_new_owner(self, using: str) -> None:
        seen = FifoJob.enqueue(using=using)
        claimed(using, new=False)
        before = all_columns(FifoJob, using)
        assert seen.claim() is False
        assert all_columns(FifoJob, using) == before

    def test_a_batch_that_was_taken_away_is_neither_run_nor_put_back(self, using: str) -> None:
        FreeJob.enqueue_many([FreeJob() for _ in range(5)], using=using)
        feed = JobPoolFeed(FreeJob.rows(using), 5, Budget.endless())
        feed.pace = Pace()  # not what earlier tests taught it
        begun = feed.first()
        assert len(feed.claimed) == 4
        run = feed.run(begun)
        with virtual_clock() as clock:
            clock.advance(minutes=5)
            sweep.rescue(FreeJob, using)
            assert all(job.claim() for job in FreeJob.rows(using))
            before = all_columns(FreeJob, using)

            assert feed.settle(run, claim_next=True) is None
            feed.close()

            assert all_columns(FreeJob, using) == before
        assert Note.objects.using(using).count() == 1, "the body that ran before"

    def test_of_a_batch_only_what_is_still_leased_to_us_is_held(self, using: str) -> None:
        FreeJob.enqueue_many([FreeJob() for _ in range(3)], using=using)
        jobs = list(FreeJob.rows(using).order_by("id"))
        assert all(job.claim() for job in jobs)
        take_away(jobs[1])
        held = [pk for rows, _ in FreeJob.held_together(jobs, using) for pk in ids(rows)]
        assert sorted(held) == [jobs[0].pk, jobs[2].pk]


class TestTheUniqueLane:
    """Two workers never run two jobs of a lane, however stale the look of either was."""

    @CONCURRENT
    def test_of_two_claims_in_a_lane_the_database_refuses_the_second(self, using: str) -> None:
        outcomes: list[Any] = []
        with open_transaction(using, lambda: FifoJob.enqueue(using=using)) as late_with_lower_id:
            elsewhere(lambda: FifoJob.enqueue(using=using))
            with open_transaction(using, lambda: claim_the_first(using, outcomes)) as claiming:
                late_with_lower_id.committed()
                # This one sees the lower id, and a lane that does not run yet.
                with in_a_thread(lambda: claim_the_first(using, outcomes)) as competing:
                    let_them_meet(competing, using)
                    assert not competing.done(), "the claim waits for the one in flight"
                    claiming.committed()
        higher, none = outcomes
        assert none is None
        assert statuses(FifoJob, using) == ["NEW", "PROCESSING"]
        assert FifoJob.rows(using).get(status="PROCESSING").pk == higher.pk

    def test_the_lower_id_that_came_late_runs_next(self, using: str) -> None:
        ran: list[int] = []

        def process(job: Any) -> None:
            ran.append(job.pk)
            if len(ran) == 1:
                # As if an earlier transaction committed only now.
                FifoJob.rows(using).bulk_create([FifoJob(pk=job.pk - 1)])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FifoJob, "process", process)
            FifoJob.rows(using).bulk_create([FifoJob(pk=10_000_001), FifoJob(pk=10_000_002)])
            lane = FifoJob.rows(using).values_list("lane", flat=True)[0]
            run_lanes(FifoJob, using, [lane], kick_budget())
        assert ran == [10_000_001, 10_000_000, 10_000_002]

    def test_it_refuses_the_second_after_a_hand_off_too(self, using: str) -> None:
        running, refused = list[Any](), list[int]()

        def process(job: Any) -> None:
            running.append(job)
            if len(running) == 2:
                third = FifoJob.rows(using).get(status="NEW")
                with pytest.raises(IntegrityError):
                    elsewhere(third.claim)
                refused.append(third.pk)

        FifoJob.enqueue_many([FifoJob() for _ in range(3)], using=using)
        lane = FifoJob.rows(using).values_list("lane", flat=True)[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FifoJob, "process", process)
            run_lanes(FifoJob, using, [lane], kick_budget())
        assert refused == [running[2].pk]

    def test_a_second_running_job_is_refused_by_the_table_itself(self, using: str) -> None:
        first, second = FifoJob.enqueue(using=using), FifoJob.enqueue(using=using)
        assert first.claim()
        with pytest.raises(IntegrityError):
            second.claim()
        with pytest.raises(IntegrityError), transaction.atomic(using=using):
            rows = FifoJob.rows(using).filter(pk=second.pk)
            rows.update(status="PROCESSING", running_lane=first.lane, lease_until=from_now(60))
        assert statuses(FifoJob, using) == ["PROCESSING", "NEW"]


class TestAFinisherAndACompetingKick:
    """A worker that hands its lane on, and a kick with an old look at it, do not deadlock."""

    @CONCURRENT
    def test_they_do_not_deadlock_at_any_step(
        self, using: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "parviraptor_celery")
        for number in range(1, MOST_STEPS):
            Note.objects.using(using).all().delete()
            FifoJob.rows(using).delete()
            running, successor = FifoJob.enqueue(using=using), FifoJob.enqueue(using=using)
            old_look = FifoJob.rows(using).get(pk=successor.pk)
            competing = Competitor(old_look)
            with before_step(number, using, competing.meet) as steps:
                run_counting_from_the_end_of_the_body(running, steps)
            competing.join()
            restarts = [record for record in caplog.messages if "starts again" in record]
            assert restarts == [], f"a deadlock when they met before step {number}"
            assert "PROCESSED" in statuses(FifoJob, using)
            if not steps.was_reached:
                return
        pytest.fail("the worker takes more steps than this test can tell apart")


# Helpers


def claimed(using: str, *, new: bool = True) -> Any:
    """Return the one job, claimed by the worker that these tests are about."""
    if new:
        FifoJob.enqueue(using=using)
    job = FifoJob.rows(using).get()
    assert job.claim()
    return job


def take_away(job: Any) -> bool:
    """Let the lease of a job run out, and another worker have the job."""
    queue, using = type(job), job.alias
    with virtual_clock() as clock:
        clock.advance(minutes=5)
        queue.rows(using).exclude(pk=job.pk).filter(status="PROCESSING").update(
            lease_until=from_now(timedelta(hours=1))
        )
        assert sweep.rescue(queue, using) == 1
        assert queue.rows(using).get(pk=job.pk).claim()
    return True


def raises(error: Exception) -> None:
    raise error


def all_columns(queue: Any, using: str) -> list[dict[str, Any]]:
    return list(queue.rows(using).order_by("id").values())


def ids(rows: Any) -> list[int]:
    return list(rows.values_list("pk", flat=True))


def claim_the_first(using: str, outcomes: list[Any]) -> None:
    lane = FifoJob.rows(using).values_list("lane", flat=True)[0]
    outcomes.append(JobLaneFeed(FifoJob.rows(using), lane).first())


class Competitor:
    """A kick that claims with an old look, because it has been waiting for a processor."""

    def __init__(self, old_look: Any) -> None:
        self.job, self.pool = old_look, ThreadPoolExecutor(1)
        self.claiming: Future[Any] | None = None

    def meet(self) -> None:
        """Claim, and return when that is done or waits for somebody."""
        claiming = self.claiming = self.pool.submit(at_once, self._claim)
        # Not by the worker's connection: within a transaction PostgreSQL repeats what it said.
        elsewhere(lambda: let_them_meet(claiming, self.job.alias))

    def join(self) -> None:
        """Wait for the claim; a deadlock that it lost is raised."""
        self.pool.shutdown()
        if self.claiming is not None:
            self.claiming.result()

    def _claim(self) -> bool:
        try:
            return bool(self.job.claim())
        except IntegrityError:
            return False


@contextmanager
def settlement_in_flight(job: Any) -> Iterator[None]:
    """Run the lane of ``job`` in a thread; in the block, that waits in the midst of settling it."""
    in_body, may_end, rows = threading.Event(), threading.Event(), type(job).rows(job.alias)

    def process(_: Any) -> None:
        in_body.set()
        assert may_end.wait(20), "nobody let the body end"

    def work() -> None:
        run_lanes(type(job), job.alias, [job.lane], kick_budget())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(job), "process", process)
        with in_a_thread(work):
            assert in_body.wait(20)
            lock = rows.filter(pk=job.pk).select_for_update()
            with open_transaction(job.alias, lambda: list(lock)):
                may_end.set()
                waits = lambda: somebody_waits_for_a_lock(job.alias)  # noqa: E731
                processes.wait_until(waits, 10, "the settlement to wait for the lock")
                yield


def enqueue_unless_sqlite_waits(using: str) -> None:
    connection = connections[using]
    if connection.vendor == "sqlite" and connection.in_atomic_block:
        return  # nobody else can write now
    elsewhere(lambda: FifoJob.enqueue(using=using).pk)


def run_counting_from_the_end_of_the_body(job: Any, steps: Any) -> None:
    def process(self: Any) -> None:
        if self.pk == job.pk:
            steps.begin()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FifoJob, "process", process)
        run_lanes(FifoJob, job.alias, [job.lane], Budget(rows=9, seconds=60))
