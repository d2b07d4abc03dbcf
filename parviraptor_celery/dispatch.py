"""Which job of a queue is next, and how a worker works off lanes and pools."""

from __future__ import annotations

from typing import Any

from . import execution, signals
from .clock import now
from .conf import settings
from .database import in_transaction
from .drains import Budget, Report, drain, drain_lanes
from .execution import Run
from .feeds import LaneFeed, PoolFeed
from .models import AbstractJob
from .states import JobStatus

FAILED_WITH_CAUSE = "dependent jobs failed"
FAIL_CHUNK = 500
POOL_BATCH = 10


def kick_budget() -> Budget:
    """Return what one kick may spend."""
    return Budget(settings.KICK_JOBS, settings.KICK_SECONDS)


def run_lanes(queue: type[AbstractJob], using: str, lanes: list[str], budget: Budget) -> Report:
    """Work off ``lanes`` of an ordered queue."""
    rows = queue.rows(using)
    return drain_lanes(lambda lane: JobLaneFeed(rows, lane), lanes, budget)


def run_pool(
    queue: type[AbstractJob], using: str, budget: Budget, batch: int = POOL_BATCH
) -> Report:
    """Work off the ready jobs of an independent queue, leasing ``batch`` rows at a time."""
    report = Report()
    drain(JobPoolFeed(queue.rows(using), batch), budget, report)
    return report


class _RunsJobs:
    def run(self, job: AbstractJob) -> Run:
        return execution.run(job)

    def announce(self, run: Run, report: Report) -> None:
        run.announce()
        if run.pause is not None:
            report.pause(run.row.lane, run.pause)


class JobLaneFeed(_RunsJobs, LaneFeed):
    """The jobs of one lane, in the order of their ids; deferred ones when nothing else is due."""

    def candidate(self) -> Any:
        head = self.rows.candidate(self.lane, JobStatus.NEW)
        if head is not None and (head.is_due or head.held_by is not None):
            return head
        return self.rows.candidate(self.lane, JobStatus.DEFERRED)

    def clear_obstacle(self, row: Any) -> bool:
        """Fail the next chunk of jobs behind the failed one, in the order of their ids.

        The failed one is locked meanwhile: somebody may be retrying it right now.
        """
        alike = self.rows.filter(lane=self.lane, status=row.status, id__gt=row.held_by)

        def fail() -> int:
            if not self.rows.failed().filter(pk=row.held_by).exists_locked():
                return 0
            ids = list(alike.order_by("lane", "id").values_list("id", flat=True)[:FAIL_CHUNK])
            failed: int = self.rows.filter(id__in=ids, status=row.status).update(
                status=JobStatus.FAILED,
                error_message=FAILED_WITH_CAUSE,
                failed_by=row.held_by,
                unique_key=None,
                modification_date=now(),
            )
            return failed

        count = in_transaction(self.using, fail)
        signals.tell(
            signals.dependents_failed,
            sender=type(row),
            lane=self.lane,
            cause_id=row.held_by,
            rows=count,
        )
        return True


class JobPoolFeed(_RunsJobs, PoolFeed):
    """The jobs of an independent queue, the most urgent first; deferred ones last."""

    def choose(self) -> list[Any]:
        ready = list(self.rows.ready().unlocked()[: self.batch])
        return ready or list(self.rows.deferred().unlocked()[: self.batch])
