"""Scenarios of job queues: what one says about its jobs, and what always has to hold."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from parviraptor_celery import sweep
from parviraptor_celery.exceptions import TemporaryJobFailure
from parviraptor_celery.models import Pause
from parviraptor_celery.pace import Pace
from parviraptor_celery.states import CLAIMABLE, JobStatus
from tests.faults.ledger import What
from tests.faults.stage import gate, without_gates
from tests.faults.world import World, let_expire, who
from tests.testapp.models import FifoJob

RUNNING_TWICE = "SELECT lane FROM {} WHERE status = 'PROCESSING' GROUP BY lane HAVING COUNT(*) > 1"


class Lanes(World):
    """Jobs of one queue. A job's ``script`` is its name, and what its body does: "j1 fail"."""

    queue: ClassVar[Any] = FifoJob
    is_swept = False
    """Whether a sweep may be needed to bring everything to rest: leases were lost, for example."""

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(self.queue, "process", lambda job: self.process(job))
        patch.setattr(sweep, "give_back", self._noting_the_stale(sweep.give_back))
        # What goes by real time: how many jobs are leased at once, and when they are shared.
        patch.setattr(Pace, "next_batch", lambda _: 10)
        patch.setattr("parviraptor_celery.dispatch.PATIENCE_SECONDS", 3600.0)

    def given(self) -> None:
        self.rows.all()._raw_delete(self.using)
        Pause.objects.using(self.using)._raw_delete(self.using)

    @property
    def running_twice(self) -> str:
        return RUNNING_TWICE.format(self.queue._meta.db_table)

    @property
    def rows(self) -> Any:
        return self.queue.rows(self.using).order_by("id")

    def enqueue(self, script: str, **options: Any) -> Any:
        """Enqueue a job in a transaction of its own."""
        item = script.split()[0]
        with self.committing(item, self.lane_of(script)):
            return self.queue.enqueue(using=self.using, script=script, **options)

    def lane_of(self, script: str) -> str:
        """Return the lane, as the history calls it; jobs without order have none."""
        return "" if self.queue.dependent_fields is None else "lane"

    def statuses(self) -> dict[str, str]:
        """Return the status of each job by its name."""
        return {
            script.split()[0]: str(status)
            for script, status in self.rows.values_list("script", "status")
        }

    def look(self, label: str) -> list[str]:
        has_lanes = self.queue.dependent_fields is not None
        if has_lanes and self.is_written_by(label) and self.select(self.running_twice):
            return [f"two jobs of one lane are PROCESSING: {self.statuses()}"]
        return self.problems

    def lose_leases(self) -> None:
        """Let the leases of all that run be over, and rescue: as a sweep a minute later would."""
        gate("time goes by")
        with (
            without_gates()
        ):  # by the primary key: time takes no locks, and waits for none of these
            for job in self.rows.filter(status=JobStatus.PROCESSING):
                let_expire(job)
        sweep.rescue(self.queue, self.using)

    def at_rest(self) -> list[str]:
        """Handle what was sent, let back-offs be over, and see that nothing was left behind."""
        self.handle_all()
        self._let_be_due()
        if self.is_swept:
            self._sweep()
        left = {name: status for name, status in self.statuses().items() if self.is_left(status)}
        return [f"left behind: {left} of {self.statuses()}"] if left else []

    def is_left(self, status: str) -> bool:
        """Return whether a job that ends so was left behind."""
        return status in (*CLAIMABLE, JobStatus.PROCESSING)

    def process(self, job: Any) -> None:
        """Do what the script says: "fail", or fail "temporary" the first time, or nothing."""
        item, _, what = job.script.partition(" ")
        is_put_back = what == "temporary" and not job.error_count
        ends: What = "broke" if is_put_back or what == "fail" else "ended"
        self.body(item, self.lane_of(job.script), f"{who()} {run_of(job)}", ends)
        if is_put_back:
            raise TemporaryJobFailure("not yet", job.error_count)
        if what == "fail":
            raise ValueError("as it was told")

    def set_aside(self) -> set[str]:
        """Return the jobs that somebody deleted, or that ended in another way than by their end."""
        done = {item for item, status in self.statuses().items() if status == JobStatus.PROCESSED}
        return {entry.item for entry in self.entries} - done

    def _let_be_due(self) -> None:
        while self.later:
            self.rows.filter(status__in=CLAIMABLE).update(run_after=None)
            self.kicks, self.later = self.later, []
            self.handle_all()

    def _sweep(self) -> None:
        self.lose_leases()
        sweep.kick_waiting(self.queue, self.using)
        self.handle_all()
        self._let_be_due()

    def _noting_the_stale(self, give_back: Any) -> Any:
        def noting(job: Any) -> bool:
            done = bool(give_back(job))
            if done:
                self.stale.add(run_of(job))
            return done

        return noting


def run_of(job: Any) -> str:
    """Return a name for this one run of a job: nobody else has its attempt."""
    return f"{job.pk}.{job.attempt}"
