"""What people decide about a job, its lane or its queue: retry, ignore, cancel, pause, resume."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import router, transaction

from . import kicks, pauses, reasons, wakes
from .clock import now
from .exceptions import CauseStillFailed, IllegalTransition
from .keyed import KeyedRow
from .reasons import Reason
from .states import CLAIMABLE, FailurePolicy, JobStatus

_FRESH: dict[str, Any] = {
    "error_count": 0,
    "error_message": "",
    "error_traceback": "",
    "failed_by": None,
}
"""Columns of a job that was retried."""


class DecidedRow(KeyedRow):
    """A job with the verbs of people; those of the engine are in the classes below it.

    An abstract model, not a mixin: a mixin would be named in every migration of the users'.
    """

    failed_by: Any
    FAILURE_POLICY: ClassVar[FailurePolicy]

    class Meta:
        abstract = True

    def retry(self) -> int:
        """Bring a failed job back, with the jobs that failed because of it; return the rows.

        All come back in one transaction: in parts, later jobs of the lane could overtake.

        Raises:
            IllegalTransition: the job has not failed.
            CauseStillFailed: the job failed because of an earlier one that is still failed.
            DuplicateUniqueKey: another job with its unique key is waiting.
        """
        self.expect(JobStatus.FAILED, "retried")
        jobs = self.rows(self.alias)
        if self.failed_by and jobs.failed().filter(pk=self.failed_by).exists():
            raise CauseStillFailed(
                f"{self._meta.label} {self.pk} failed because of job {self.failed_by}. "
                "Retry or ignore that one first."
            )
        with transaction.atomic(using=self.alias):
            rows = int(self.wait_by_hand(run_after=None, worker_deaths=0, **_FRESH))
            if rows:
                rows += self._bring_dependents_back()
            kicks.on_commit(self, self.alias)
        return rows

    def ignore(self) -> bool:
        """Set a failed job aside, so that newcomers of its lane run again."""
        self.expect(JobStatus.FAILED, "ignored")
        with transaction.atomic(using=self.alias):
            kicks.on_commit(self, self.alias)
            return self.move(JobStatus.IGNORED)

    def cancel(self) -> bool:
        """Set a waiting job aside, so that it never runs; what waited behind it may run.

        Returns False, and changes nothing, if a worker took it since this object was read.

        Raises:
            IllegalTransition: the job does not wait.
        """
        if self.status not in CLAIMABLE:
            raise IllegalTransition(
                f"{self._meta.label} {self.pk} is {self.status}; only what waits "
                f"({', '.join(CLAIMABLE)}) can be cancelled."
            )
        with transaction.atomic(using=self.alias):
            kicks.on_commit(self, self.alias)
            return self.move(JobStatus.IGNORED)

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Delete as Django does; what waited behind this job may begin after the commit.

        Nobody is woken for one that runs: its worker comes to the lane when the body has ended.
        """
        alias = using or router.db_for_write(type(self), instance=self)
        held = {self.lane: self.pk} if self._holds_lane() else {}
        deleted = super().delete(using=using, keep_parents=keep_parents)
        if held:
            wakes.after_commit(type(self), alias, held)
        return deleted

    @classmethod
    def pause(cls, *, using: str | None = None, reason: str = "", **lane_values: Any) -> bool:
        """Pause the queue, or the lane that the values of all dependent fields name.

        No look for the next job that begins after this has committed finds one, until
        ``resume()``. What a worker has found or leased by then may run. Returns False if it was
        paused before; the reason is the new one.

        >>> Export.pause(reason="the exchange rates are wrong")
        >>> Export.pause(shop="Graz", product=4711)

        Raises:
            NotALane: a field is missing, is none of the dependent ones, or holds a wrong value.
            CanNotPause: there is no table for pauses in that database; the reason is too long.
        """
        return pauses.pause(cls, using, pauses.lane_named(cls, lane_values, reason), reason)

    @classmethod
    def resume(cls, *, using: str | None = None, **lane_values: Any) -> bool:
        """End the pause of the queue, or of one lane, and wake workers; False if none was.

        A lane that was paused by itself stays paused when its queue is resumed.

        Raises:
            NotALane: as for ``pause()``.
        """
        return pauses.resume(cls, using, pauses.lane_named(cls, lane_values))

    def pause_lane(self, reason: str = "") -> bool:
        """Pause the lane of this job, as ``pause()`` does."""
        return pauses.pause(type(self), self.alias, pauses.lane_of_job(self), reason)

    def resume_lane(self) -> bool:
        """End the pause of this job's lane, as ``resume()`` does."""
        return pauses.resume(type(self), self.alias, pauses.lane_of_job(self))

    def why(self, *, ask_workers: bool = False) -> Reason:
        """Return why this job does not run, or how it stands: see ``reasons.why()``."""
        return reasons.why(self, ask_workers=ask_workers)

    def _holds_lane(self) -> bool:
        """Return whether others may wait behind this job, but for one that runs."""
        if self.lane is None or self.status != JobStatus.FAILED:
            return self.lane is not None and self.status in CLAIMABLE
        return self.failed_by is None and self.FAILURE_POLICY is not FailurePolicy.GO_ON

    def _bring_dependents_back(self) -> int:
        """Let the jobs that failed because of this one wait again; return how many do."""
        dependents = self.rows(self.alias).failed_because_of(self).order_by()
        rows = 0
        for job in dependents.keyed_newest_first():
            rows += job.move(JobStatus.NEW, **_FRESH) and job.status == JobStatus.NEW
        without_key = dependents.filter(unique_key__isnull=True)
        return rows + without_key.update(
            status=JobStatus.NEW, modification_date=now(), waiting_key=None, **_FRESH
        )
