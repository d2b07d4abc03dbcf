"""All schedules of workers and producers around a lane, within a bound of preemptions.

Nothing sweeps here unless a test says so: what is left behind is stranded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from django.db import transaction

from parviraptor_celery import kicks, sweep
from parviraptor_celery.dispatch import JobLaneFeed
from parviraptor_celery.drains import Budget, Report, drain
from parviraptor_celery.states import JobStatus
from tests.faults.exploring import Explore
from tests.faults.exploring import explored as explored
from tests.faults.lanes import Lanes
from tests.faults.stage import gate
from tests.faults.world import let_expire, who
from tests.testapp.models import FreeJob

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)

Parts = Mapping[str, Callable[[], object]]


class AProducer(Lanes):
    """Two workers have the same kick for a lane of one job, while another job is enqueued."""

    names = "ABP"
    expected: ClassVar[Any] = frozenset({"A: j1 j2 B: ", "A: j1 B: j2", "A:  B: j1 j2"})

    def given(self) -> None:
        super().given()
        self.enqueue("j1")
        self.kicks *= 2

    def parts(self) -> Parts:
        return {"A": self.worker, "B": self.worker, "P": lambda: self.enqueue("j2")}

    def kind(self) -> str:
        return f"A: {' '.join(self.by('A'))} B: {' '.join(self.by('B'))}"


@CONCURRENT
def test_a_job_that_is_enqueued_while_its_lane_drains_is_never_stranded(explored: Explore) -> None:
    explored(AProducer)


class ALateCommit(Lanes):
    """Two producers, of whom either may commit first, and a worker that takes what kicks come."""

    names = "PQA"
    expected: ClassVar[Any] = frozenset({"p q", "q p"})

    def parts(self) -> Parts:
        return {
            "P": lambda: self.enqueue("p"),
            "Q": lambda: self.enqueue("q"),
            "A": self.worker,
        }

    def kind(self) -> str:
        return " ".join(item for _, item in self.runs())


@CONCURRENT
def test_a_lower_id_that_commits_late_runs_next_and_nothing_is_stranded(explored: Explore) -> None:
    explored(ALateCommit)


class AHeartbeat(Lanes):
    """The heartbeat of a running job has locked its row when the body ends and another comes."""

    names = "AHP"
    expected: ClassVar[Any] = frozenset({"kept"})
    running: Any = None
    is_locked = False

    def given(self) -> None:
        super().given()
        self.running, self.is_locked = None, False
        self.enqueue("j1")

    def parts(self) -> Parts:
        return {"A": self.worker, "H": self.beat, "P": self.produce}

    def process(self, job: Any) -> None:
        if self.running is None:
            self.running = job
            gate("waits for the heartbeat", lambda: self.is_locked)
        super().process(job)

    def beat(self) -> None:
        gate("waits for the job", lambda: self.running is not None)
        renew = self.running.renew

        def renew_locked() -> bool:
            self.is_locked = True
            return bool(renew())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.running, "renew", renew_locked)
            self.was_kept = self.running.keep_lease()

    def produce(self) -> None:
        gate("waits for the heartbeat", lambda: self.is_locked)
        self.enqueue("j2")

    def kind(self) -> str:
        return "kept" if self.was_kept else "lost"


@CONCURRENT
def test_a_job_that_commits_while_the_settlement_waits_for_a_heartbeat_is_run(
    explored: Explore,
) -> None:
    found = explored(AHeartbeat)
    assert found.waits, "the settlement never met the heartbeat"


class AHandOff(Lanes):
    """A worker hands its lane on; another claims the successor, which it saw before the head.

    The head has the lower id, and was committed since that look.
    """

    names = "AB"
    preemptions = 2
    expected: ClassVar[Any] = frozenset({"A:j1 A:j2", "B:j2 B:j1"})

    def given(self) -> None:
        super().given()
        self.note("intended", "j2", "lane")
        self.enqueue("j1")
        self.enqueue("j2")
        self.kicks = self.kicks[:1]
        head = self.rows[0]
        with transaction.atomic(using=self.using):
            self.rows.filter(pk=head.pk).delete()
            self.old_look = self.rows.candidate(head.lane, JobStatus.NEW)
            transaction.set_rollback(True, using=self.using)

    def parts(self) -> Parts:
        return {"A": self.worker, "B": self.claim_what_was_seen}

    def claim_what_was_seen(self) -> None:
        feed = JobLaneFeed(self.queue.rows(self.using), self.old_look.lane)
        feed.is_first = False  # so that PostgreSQL looks and claims in two steps, too
        looks = iter([self.old_look])
        look_again = feed.candidate
        feed.candidate = lambda: next(looks, None) or look_again()  # type: ignore[method-assign]
        drain(feed, Budget.endless(), Report())

    def kind(self) -> str:
        return " ".join(f"{name}:{item}" for name, item in self.runs())


@CONCURRENT
def test_a_hand_off_and_a_competing_kick_neither_deadlock_nor_overlap(explored: Explore) -> None:
    explored(AHandOff)


class ALostLease(Lanes):
    """A worker that loses its lease fails the job, while another runs that to a good end."""

    names = "ASB"
    expected: ClassVar[Any] = frozenset({"kept", "lost"})

    def given(self) -> None:
        super().given()
        self.enqueue("j1")
        self.enqueue("j2")
        self.kicks = self.kicks[:1]

    def parts(self) -> Parts:
        return {"A": self.worker, "S": self.sweep, "B": self.worker}

    def sweep(self) -> None:
        self.lose_leases()
        kicks.send(self.queue, self.using, [self.rows[0].lane])

    def process(self, job: Any) -> None:
        super().process(job)
        if who() == "A" and job.script == "j1" and job.attempt == 1:
            raise ValueError("as it was told")

    def at_rest(self) -> list[str]:
        left, statuses, first = super().at_rest(), self.statuses(), f"{self.rows[0].pk}.1"
        has_failed = first not in self.stale and self.began(f"A {first}")
        wanted = JobStatus.FAILED if has_failed else JobStatus.PROCESSED
        if set(statuses.values()) != {wanted}:
            left.append(f"the worker without a lease has written: {statuses}")
        return left

    def kind(self) -> str:
        return "lost" if self.stale else "kept"


@CONCURRENT
def test_a_worker_that_lost_its_lease_records_nothing_at_any_step(explored: Explore) -> None:
    explored(ALostLease)


class TwoSweeps(Lanes):
    """Two sweeps find the job of a dead worker and a lane whose kick was lost."""

    names = "STA"
    expected: ClassVar[Any] = frozenset({"dead late"})

    def given(self) -> None:
        super().given()
        self.enqueue("dead")
        self.enqueue("late")
        self.kicks.clear()
        dead = self.rows[0]
        assert dead.claim()
        let_expire(dead)

    def parts(self) -> Parts:
        return {"S": self.sweep, "T": self.sweep, "A": self.worker}

    def sweep(self) -> None:
        sweep.rescue(self.queue, self.using)
        sweep.kick_lanes(self.queue, self.using, "")

    def at_rest(self) -> list[str]:
        left, deaths = super().at_rest(), self.rows[0].worker_deaths
        return left if deaths == 1 else [*left, f"one death was counted {deaths} times"]

    def kind(self) -> str:
        return " ".join(item for _, item in self.runs())


@CONCURRENT
def test_two_sweeps_at_once_rescue_a_job_once_and_forget_no_lane(explored: Explore) -> None:
    explored(TwoSweeps)


class APool(Lanes):
    """Two workers lease batches of an independent queue, while another job is enqueued."""

    names = "ABP"
    queue = FreeJob
    expected: ClassVar[Any] = frozenset({"A 3 B 0", "A 0 B 3"})

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        super().prepare(patch)
        patch.setattr("parviraptor_celery.pace.Pace.next_batch", lambda _: 2)

    def given(self) -> None:
        super().given()
        self.enqueue("j1")
        self.enqueue("j2")

    def parts(self) -> Parts:
        return {"A": self.handle_one, "B": self.handle_one, "P": lambda: self.enqueue("j3")}

    def handle_one(self) -> None:
        if kick := self.next_kick():
            self.handle(kick)

    def kind(self) -> str:
        return f"A {len(self.by('A'))} B {len(self.by('B'))}"


@CONCURRENT
def test_of_an_independent_queue_each_job_is_run_once_and_none_is_left(explored: Explore) -> None:
    explored(APool)
