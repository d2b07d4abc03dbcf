"""All schedules of what people decide, and of keys and squashing, against workers and producers.

Nothing sweeps here: what is left behind is stranded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from django.db import transaction

from parviraptor_celery.dispatch import run_lanes
from parviraptor_celery.drains import Budget
from parviraptor_celery.exceptions import DuplicateUniqueKey
from parviraptor_celery.states import JobStatus
from tests.faults.exploring import Explore
from tests.faults.exploring import explored as explored
from tests.faults.lanes import Lanes
from tests.faults.stage import gate, without_gates
from tests.testapp.models import FreeJob, SquashJob

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)

Parts = Mapping[str, Callable[[], object]]


class AFailedCause(Lanes):
    """A person decides about a failed job, while a worker fails those behind it and one comes."""

    names = "AHP"
    verb = ""
    cause: Any = None

    def given(self) -> None:
        super().given()
        self.enqueue("j1 fail")
        self.enqueue("j2")
        self.kicks = self.kicks[:1]
        self.cause = self.rows[0]
        run_lanes(self.queue, self.using, [self.cause.lane], Budget(rows=1, seconds=60))
        self.cause.refresh_from_db()
        self.failed_before: set[str] | None = None

    def parts(self) -> Parts:
        return {"A": self.worker, "H": self.decide, "P": lambda: self.enqueue("j3")}

    def decide(self) -> None:
        with transaction.atomic(using=self.using):
            transaction.on_commit(self.note_failed, using=self.using)
            getattr(self.cause, self.verb)()

    def note_failed(self) -> None:
        with without_gates():
            self.failed_before = self.failed()

    def failed(self) -> set[str]:
        return {name for name, status in self.statuses().items() if status == JobStatus.FAILED}

    def at_rest(self) -> list[str]:
        left = super().at_rest()
        if wrong := self.failed() - (self.failed_before or set()):
            left.append(f"{wrong} failed because of a job that is not failed any more")
        return left

    def kind(self) -> str:
        return f"{len(self.failed())} failed"


class ARetriedCause(AFailedCause):
    verb = "retry"
    expected: ClassVar[Any] = frozenset({"0 failed"})

    def decide(self) -> None:
        with transaction.atomic(using=self.using):
            self.queue.rows(self.using).filter(pk=self.cause.pk).update(script="j1")
            self.cause.retry()
        self.failed_before = set()


class AnIgnoredCause(AFailedCause):
    verb = "ignore"
    expected: ClassVar[Any] = frozenset({"0 failed", "1 failed", "2 failed"})


class ADeletedCause(AFailedCause):
    """The same by ``delete()``, and without a newcomer."""

    names = "AH"
    preemptions = 2
    verb = "delete"
    expected: ClassVar[Any] = frozenset({"0 failed", "1 failed"})

    def parts(self) -> Parts:
        return {"A": self.worker, "H": self.decide}

    def decide(self) -> None:
        super().decide()
        # Whoever deletes a row past the library has to send the kick, or wait for the sweep.
        self.kicks.append(self.kick)

    def given(self) -> None:
        super().given()
        self.kick = self.kicks[0]


@CONCURRENT
@pytest.mark.parametrize("scenario", [ARetriedCause, AnIgnoredCause, ADeletedCause])
def test_after_a_decision_about_their_cause_no_job_fails_and_none_is_stranded(
    explored: Explore, scenario: type[AFailedCause]
) -> None:
    explored(scenario)


class APause(Lanes):
    """A lane is paused and resumed while a worker drains it and a job is enqueued."""

    names = "AHP"
    expected: ClassVar[Any] = frozenset({"0 begun", "1 begun"})

    def given(self) -> None:
        super().given()
        self.is_paused, self.begun = False, 0
        self.enqueue("j1")
        self.enqueue("j2")
        self.kicks = self.kicks[:1]

    def parts(self) -> Parts:
        return {"A": self.worker, "H": self.pause_and_resume, "P": lambda: self.enqueue("j3")}

    def pause_and_resume(self) -> None:
        first = self.rows[0]
        assert first.pause_lane()
        self.is_paused = True
        gate("waits until nothing happens any more", lambda: False)
        self.is_paused = False
        assert first.resume_lane()

    def process(self, job: Any) -> None:
        gate("begins after its claim", lambda: True)
        self.begun += self.is_paused
        if self.begun > 1:
            self.problems.append("two jobs began while their lane was paused")
        super().process(job)

    def kind(self) -> str:
        return f"{self.begun} begun"


@CONCURRENT
def test_a_pause_lets_at_most_the_one_run_that_was_found_and_a_resume_wakes_all(
    explored: Explore,
) -> None:
    explored(APause)


class ACancellation(Lanes):
    """A person cancels the head of a lane while a worker comes for it."""

    names = "AH"
    preemptions = 2
    expected: ClassVar[Any] = frozenset({"cancelled", "late"})

    def given(self) -> None:
        super().given()
        self.enqueue("j1")
        self.enqueue("j2")
        self.kicks = self.kicks[:1]
        self.head, self.was_cancelled = self.rows[0], False

    def parts(self) -> Parts:
        return {"A": self.worker, "H": self.cancel}

    def cancel(self) -> None:
        self.was_cancelled = self.head.cancel()

    def at_rest(self) -> list[str]:
        left, has_run = super().at_rest(), ("j1" in [item for _, item in self.runs()])
        if has_run == self.was_cancelled:
            left.append(f"cancel() said {self.was_cancelled}, and it ran: {has_run}")
        return left

    def kind(self) -> str:
        return "cancelled" if self.was_cancelled else "late"


@CONCURRENT
def test_a_job_is_cancelled_or_run_and_cancel_knows_which(explored: Explore) -> None:
    explored(ACancellation)


class ASquashedLane(Lanes):
    """Two workers fold a lane of two jobs into the newest, while a third is enqueued."""

    names = "ABP"
    queue = SquashJob
    expected: ClassVar[Any] = frozenset({"j2 j3", "j3"})

    def given(self) -> None:
        super().given()
        self.enqueue("j1")
        self.enqueue("j2")
        self.kicks = self.kicks[:1]

    def parts(self) -> Parts:
        return {"A": self.worker, "B": self.worker, "P": lambda: self.enqueue("j3")}

    def at_rest(self) -> list[str]:
        left, statuses = super().at_rest(), self.statuses()
        if statuses["j3"] != JobStatus.PROCESSED:
            left.append(f"the newest did not run: {statuses}")
        return left

    def kind(self) -> str:
        return " ".join(item for _, item in self.runs())


@CONCURRENT
def test_of_a_lane_that_squashes_the_newest_runs_and_each_other_at_most_once(
    explored: Explore,
) -> None:
    explored(ASquashedLane)


class AUniqueKey(Lanes):
    """Two producers have the key of a job that a worker claims and puts back meanwhile."""

    names = "APQ"
    may_raise = (DuplicateUniqueKey,)
    may_restart = True  # on MariaDB those who insert one key wait for each other in a circle
    expected: ClassVar[Any] = frozenset({"j1 j1", "j1 p", "j1 q", "j1 p q", "j1 q p"})

    def given(self) -> None:
        super().given()
        self.enqueue("j1 temporary", unique_key="k")

    def parts(self) -> Parts:
        return {
            "A": self.worker,
            "P": lambda: self.enqueue_by_itself("p"),
            "Q": lambda: self.enqueue_by_itself("q"),
        }

    def enqueue_by_itself(self, item: str) -> None:
        """Enqueue in no transaction of the caller's: in one the library can't start again."""
        lane = self.lane_of(item)
        self.note("intended", item, lane)
        self.queue.enqueue(using=self.using, script=item, unique_key="k")
        self.note("committed", item, lane)

    def at_rest(self) -> list[str]:
        left, statuses = super().at_rest(), self.statuses()
        if JobStatus.FAILED in statuses.values():
            left.append(f"failed because of a key: {statuses}")
        return left

    def kind(self) -> str:
        return " ".join(item for _, item in self.runs())


class AKeyThatIsFreed(AUniqueKey):
    """A producer comes with the key of a job just when that is claimed."""

    names = "PA"
    preemptions = 2
    expected: ClassVar[Any] = frozenset({"j1 j1", "j1 p"})

    def parts(self) -> Parts:
        return {name: part for name, part in super().parts().items() if name in self.names}


class AKeyThatComesAndGoes(AUniqueKey):
    """Just when a job is put back, another comes with its key, and is run."""

    names = "APB"
    preemptions = 2
    queue = FreeJob
    expected: ClassVar[Any] = frozenset({"j1 p", "j1 p j1"})

    def parts(self) -> Parts:
        return {"A": self.handle_one, "P": self.produce, "B": self.handle_one}

    def handle_one(self) -> None:
        if kick := self.next_kick():
            self.handle(kick)

    def produce(self) -> None:
        gate("waits for the body", lambda: bool(self.runs()))
        self.enqueue_by_itself("p")


@CONCURRENT
@pytest.mark.parametrize("scenario", [AUniqueKey, AKeyThatIsFreed, AKeyThatComesAndGoes])
def test_of_one_key_one_job_waits_and_whoever_comes_too_late_is_told_so(
    explored: Explore, scenario: type[AUniqueKey]
) -> None:
    explored(scenario)
