"""Finds what is next, and works it off: lanes one after another, independent jobs by the batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from django.db import IntegrityError

from . import execution, signals
from .clock import from_now, now
from .conf import settings
from .database import in_transaction
from .execution import Run
from .leases import worker_identity
from .models import AbstractJob
from .querysets import next_attempt
from .states import JobStatus

FAILED_WITH_CAUSE = "dependent jobs failed"
FAIL_CHUNK = 500
POOL_BATCH = 10


@dataclass
class Budget:
    """How much one task may do before it makes room for others: jobs, and seconds."""

    jobs: float = field(default_factory=lambda: settings.KICK_JOBS)
    seconds: float = field(default_factory=lambda: settings.KICK_SECONDS)
    stop: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.seconds

    def spend(self) -> None:
        self.jobs -= 1

    @property
    def is_spent(self) -> bool:
        return self.jobs <= 0 or time.monotonic() >= self._deadline or self.stop()


@dataclass
class Report:
    """What a drain did: jobs run, what is left to others, and when a job that waits is due."""

    jobs: int = 0
    is_exhausted: bool = False
    pauses: dict[str | None, timedelta] = field(default_factory=dict)

    def note(self, run: Run) -> None:
        self.jobs += 1
        if run.pause is not None:
            lane = run.job.lane
            self.pauses[lane] = min(run.pause, self.pauses.get(lane, run.pause))


class Feed(Protocol):
    """Where a drain gets its jobs from."""

    def first(self) -> AbstractJob | None:
        """Claim a job in a transaction of its own."""

    def settle(self, run: Run, *, claim_next: bool) -> AbstractJob | None:
        """Settle a run; if asked, claim what follows it in the same transaction."""

    def close(self) -> None:
        """Give back what was claimed and not begun."""


def drain(feed: Feed, budget: Budget, report: Report) -> None:
    """Work off ``feed`` until it is empty or the budget is spent.

    After a settlement that found no successor the feed is asked once more, in a new
    transaction: a job that was enqueued while the last one ran is seen only then.
    """
    try:
        job = feed.first()
        while job is not None:
            run = execution.run(job)
            budget.spend()
            report.is_exhausted = budget.is_spent
            job = feed.settle(run, claim_next=not budget.is_spent)
            execution.announce(run)
            report.note(run)
            if job is None and not report.is_exhausted:
                job = feed.first()
    finally:
        feed.close()


def drain_lanes(
    queue: type[AbstractJob], using: str, lanes: list[str], budget: Budget
) -> tuple[Report, list[str]]:
    """Work off ``lanes``; return the report and the lanes that the budget left over."""
    report = Report()
    for position, lane in enumerate(lanes):
        if budget.is_spent:
            return report, lanes[position:]
        report.is_exhausted = False
        drain(LaneFeed(queue, using, lane), budget, report)
        if report.is_exhausted:
            return report, lanes[position:]
    return report, []


def drain_pool(queue: type[AbstractJob], using: str, budget: Budget, batch: int = POOL_BATCH) -> Report:
    """Work off the ready jobs of an independent queue."""
    report = Report()
    drain(PoolFeed(queue, using, batch), budget, report)
    return report


class LaneFeed:
    """One lane: the head runs, then its successor, never two at a time."""

    def __init__(self, queue: type[AbstractJob], using: str, lane: str) -> None:
        self.queue, self.using, self.lane = queue, using, lane
        self.rows = queue.rows(using)

    def first(self) -> AbstractJob | None:
        while True:
            job = self._candidate()
            if job is None or job.lane_is_running:
                return None  # whoever runs the lane looks again when done
            if job.cause_id is not None:
                self._fail_dependents(job)
            elif self._claim_alone(job):
                return job

    def settle(self, run: Run, *, claim_next: bool) -> AbstractJob | None:
        if run.is_settled:
            return None
        successor = self._successor_of(run) if claim_next else None
        if successor is None:
            in_transaction(self.using, lambda: execution.settle(run))
            return None
        try:
            return in_transaction(self.using, self._hand_off(run, successor))
        except IntegrityError:  # the lane was taken in between: finish alone
            in_transaction(self.using, lambda: execution.settle(run))
            return None

    def close(self) -> None:
        """A lane is claimed one job at a time: nothing is left over."""

    def _candidate(self) -> Any:
        """Return the job that is next: the head if it is due, else a deferred one."""
        head = self.rows.waiting_in(self.lane).as_candidates().first()
        if head is not None and head.is_due:
            return head
        return self.rows.deferred_in(self.lane).as_candidates().first()

    def _claim_alone(self, job: AbstractJob) -> bool:
        try:
            return in_transaction(self.using, _repeatable_claim(job))
        except IntegrityError:
            return False  # another job of the lane was claimed between our look and our write

    def _successor_of(self, run: Run) -> Any:
        """Return the waiting job that may be claimed together with this settlement.

        Only where the settled job leaves its lane for good: one that is put back would be
        overtaken, and one that fails takes its dependents along.
        """
        if not isinstance(run.outcome, execution.Processed | execution.Ignored):
            return None
        head = self._candidate()
        if head is None or head.cause_id is not None or head.status != JobStatus.NEW:
            return None
        return head

    def _hand_off(
        self, run: Run, successor: AbstractJob
    ) -> Callable[[], AbstractJob | None]:
        claim = _repeatable_claim(successor)

        def settle_and_claim() -> AbstractJob | None:
            # Both rows are locked before either is changed: a competing kick that holds the
            # successor while it waits for our lane would otherwise deadlock with us.
            both = self.rows.filter(pk__in=[run.job.pk, successor.pk]).order_by("pk")
            list(both.locked().values_list("pk"))
            return successor if execution.settle(run) and claim() else None

        return settle_and_claim

    def _fail_dependents(self, head: Any) -> None:
        """Fail the next chunk of jobs behind the cause of ``head``, in the order of their ids."""
        alike = self.rows.filter(lane=self.lane, status=head.status, id__gt=head.cause_id)

        def fail() -> int:
            ids = list(alike.order_by("lane", "id").values_list("id", flat=True)[:FAIL_CHUNK])
            return self.rows.filter(id__in=ids, status=head.status).update(
                status=JobStatus.FAILED,
                error_message=FAILED_WITH_CAUSE,
                failed_by=head.cause_id,
                unique_key=None,
                modification_date=now(),
            )

        rows = in_transaction(self.using, fail)
        signals.dependents_failed.send_robust(
            sender=self.queue, lane=self.lane, cause_id=head.cause_id, rows=rows
        )


class PoolFeed:
    """An independent queue: a few rows are leased at once, and begun one by one."""

    def __init__(self, queue: type[AbstractJob], using: str, batch: int) -> None:
        self.queue, self.using, self.batch = queue, using, batch
        self.rows = queue.rows(using)
        self.claimed: list[AbstractJob] = []
        self.is_paused = False

    def first(self) -> AbstractJob | None:
        while not self.is_paused:
            if not self.claimed:
                self.claimed = in_transaction(self.using, self._claim_batch)
            if not self.claimed:
                return None
            if job := self._take(in_transaction(self.using, self._begin_next)):
                return job
        return None

    def settle(self, run: Run, *, claim_next: bool) -> AbstractJob | None:
        if isinstance(run.outcome, execution.NotProcessable):
            self.is_paused = True
        claim_next = claim_next and not self.is_paused
        settled_before = run.is_settled

        def settle_and_begin() -> int | None:
            if not settled_before:
                execution.settle(run)
            return self._begin_next() if claim_next else None

        return self._take(in_transaction(self.using, settle_and_begin))

    def close(self) -> None:
        while self.claimed:
            self.claimed.pop(0).put_back()

    def _begin_next(self) -> int | None:
        """Begin the first claimed job that is still ours; return its position."""
        return next((at for at, job in enumerate(self.claimed) if job.begin()), None)

    def _take(self, position: int | None) -> AbstractJob | None:
        if position is None:
            return None
        job = self.claimed[position]
        del self.claimed[: position + 1]
        return job

    def _claim_batch(self) -> list[AbstractJob]:
        for candidates in (self.rows.ready(), self.rows.deferred()):
            jobs = list(candidates.locked(skip=True)[: self.batch])
            if jobs:
                return self._lease(jobs)
        return []

    def _lease(self, jobs: list[AbstractJob]) -> list[AbstractJob]:
        self.rows.filter(pk__in=[job.pk for job in jobs]).update(
            status=JobStatus.PROCESSING,
            attempt=next_attempt(),
            lease_until=from_now(settings.LEASE_SECONDS),
            leased_by=worker_identity(),
            begun_at=None,
            modification_date=now(),
        )
        for job in jobs:
            job.status, job.attempt = JobStatus.PROCESSING, job.attempt + 1
        return jobs


def _repeatable_claim(job: AbstractJob) -> Callable[[], bool]:
    """Return a claim of ``job`` as it was seen, for a transaction that may start again."""
    seen = job.status, job.attempt

    def claim() -> bool:
        job.status, job.attempt = seen
        return job.claim()

    return claim
