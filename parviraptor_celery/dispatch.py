"""Which job of a queue is next, and how a worker works off lanes and pools."""

from __future__ import annotations

from typing import Any

from django.db import DataError

from . import claims, execution, first_claims, handoff, kicks, signals, squashing, stopping
from .clock import now
from .conf import settings
from .database import alone, in_transaction, is_refusal
from .drains import Budget, Report, drain, drain_lanes
from .execution import Run
from .lane_feed import LaneFeed
from .leases import HEARTBEATS_PER_LEASE, heartbeat
from .models import AbstractJob
from .pace import Pace
from .pool_feed import PoolFeed
from .states import FailurePolicy, JobStatus
from .unreadable import UnclaimableRow

FAILED_WITH_CAUSE = "dependent jobs failed"
FAIL_CHUNK = 500
MOST_AT_ONCE = 100
PATIENCE_SECONDS = 1.0
"""After which a job that runs shares what was leased together with it."""


def kick_budget() -> Budget:
    """Return what one kick may spend: nothing more once the worker is told to stop."""
    return Budget(settings.KICK_JOBS, settings.KICK_SECONDS, stopping.is_stopping)


def run_lanes(queue: type[AbstractJob], using: str, lanes: list[str], budget: Budget) -> Report:
    """Work off ``lanes`` of an ordered queue."""
    rows = queue.rows(using)
    return drain_lanes(lambda lane: JobLaneFeed(rows, lane), lanes, budget)


def run_pool(
    queue: type[AbstractJob], using: str, budget: Budget, most: int = MOST_AT_ONCE
) -> Report:
    """Work off the ready jobs of an independent queue.

    So many are leased at a time as take a fraction of a second, but ``most`` at the most.
    """
    report = Report()
    drain(JobPoolFeed(queue.rows(using), most, budget), budget, report)
    return report


class _RunsJobs:
    """What feeds of both kinds have in common, before the classes they derive from."""

    is_first = True
    """Whether nothing was looked for yet."""

    is_known_empty = False
    """Whether no job was ready a moment ago."""

    def run(self, job: AbstractJob) -> Run:
        first_claims.begins(job)
        return execution.run(job)

    def settle(self, run: Run, *, claim_next: bool) -> Any:
        following = super().settle(run, claim_next=claim_next)  # type: ignore[misc]
        first_claims.is_settled(run.row)
        return following

    def announce(self, run: Run, report: Report) -> None:
        run.announce()
        if run.pause is not None:
            report.pause(run.row.lane, run.pause)


class JobLaneFeed(_RunsJobs, LaneFeed):
    """The jobs of one lane, in the order of their ids; deferred ones when nothing else is due."""

    def first(self) -> Any:
        """Claim what is first; a kick's first claim is one statement, where that is possible."""
        if self.is_first and self._claims_at_once():
            self.is_first = False
            try:
                found = self._claim_head()
            except DataError:
                alone(self.using, lambda: first_claims.give_back_unknown(self.rows))
            except Exception as error:
                if not is_refusal(error):
                    raise
            else:
                if found.row is not None or found.is_running:
                    return found.row  # whoever runs the lane looks again when done
                self.is_known_empty = found.is_empty
        return super().first()

    def _claims_at_once(self) -> bool:
        return claims.is_possible(self.using) and not self.rows.model.SQUASH_WAITING_JOBS

    def _claim_head(self) -> first_claims.Found:
        return alone(
            self.using,
            lambda: first_claims.claim_head(self.rows, self.lane),
            again=lambda: first_claims.claim_head_again(self.rows, self.lane),
        )

    def candidate(self) -> Any:
        head = None
        if not self.is_known_empty:
            head = self.rows.candidate(self.lane, JobStatus.NEW)
        self.is_known_empty = False
        if head is not None and head.is_paused:
            return None
        if head is not None and (self._fails(head) or (head.is_due and head.held_by is None)):
            return head
        deferred = self.rows.candidate(self.lane, JobStatus.DEFERRED)
        if deferred is None or deferred.is_paused:
            return None
        return deferred if self._fails(deferred) or deferred.is_due else None

    def hand_off(self, run: Run) -> Any:
        if not claims.is_possible(self.using):
            return super().hand_off(run)
        try:
            return alone(
                self.using,
                lambda: handoff.settle_and_claim(run, self.rows, self.lane),
                again=lambda: self.hand_off_again(run),
            )
        except DataError:  # perhaps it was all written, and psycopg can't read what was claimed
            return self.hand_off_again(run)

    def clear_obstacle(self, row: Any) -> bool:
        """Fail the next chunk of jobs behind the failed one, in the order of their ids.

        The failed one is locked meanwhile: somebody may be retrying it right now. After a full
        chunk other lanes have their turn. False where the queue holds its lanes.
        """
        if not self._fails(row):
            return False

        def fail() -> int:
            if not self.rows.failed().filter(pk=row.held_by).exists_locked():
                return 0
            behind = self.rows.waiting_from(self.lane, row.status, row.pk)
            ids = list(behind.values_list("id", flat=True)[:FAIL_CHUNK])
            failed: int = self.rows.filter(id__in=ids, status=row.status).update(
                status=JobStatus.FAILED,
                error_message=FAILED_WITH_CAUSE,
                failed_by=row.held_by,
                waiting_key=None,
                modification_date=now(),
            )
            return failed

        count = in_transaction(self.using, fail)
        self.comes_back = count == FAIL_CHUNK
        signals.tell(
            signals.dependents_failed,
            sender=type(row),
            lane=self.lane,
            cause_id=row.held_by,
            rows=count,
        )
        return True

    def fold(self, row: Any) -> bool:
        """Where the queue squashes, let the newest due job supersede those that wait before it.

        Beside a deferred candidate nothing that is ``NEW`` could run, so nothing is folded.
        """
        if not row.SQUASH_WAITING_JOBS or row.status != JobStatus.NEW:
            return False
        count = squashing.fold(self.rows, row)
        self.comes_back = count == squashing.SQUASH_CHUNK
        return count > 0

    def _fails(self, row: Any) -> bool:
        policy = self.rows.model.FAILURE_POLICY
        return row.held_by is not None and policy is FailurePolicy.FAIL_DEPENDENTS


class JobPoolFeed(_RunsJobs, PoolFeed):
    """The jobs of an independent queue, the most urgent first; deferred ones last."""

    def __init__(self, rows: Any, most: int, budget: Budget) -> None:
        self.pace, self.most, self.budget = Pace.of(rows.model), most, budget
        self.is_shared = False
        self.has_lost_an_answer = False
        self.has_begun = False
        """Whether the first of the leased jobs began with its claim."""

        super().__init__(rows, batch=most)

    def run(self, job: AbstractJob) -> Run:
        if not self.claimed:
            return super().run(job)
        with heartbeat.keep(self._share, HEARTBEATS_PER_LEASE * PATIENCE_SECONDS):
            return super().run(job)

    def settle(self, run: Run, *, claim_next: bool) -> Any:
        if self.is_shared:
            self.is_shared, self.claimed = False, [job for job in self.claimed if job.unique_key]
        return super().settle(run, claim_next=claim_next)

    def close(self) -> None:
        super().close()
        if self.has_lost_an_answer:  # and what it was about may have been on its way still
            alone(self.using, lambda: first_claims.give_back_unknown(self.rows))
        self.pace.end()

    def prepare(self, rows: list[Any]) -> list[Any]:
        self.pace.begin(len(rows))
        self.has_begun = bool(rows) and rows[0].begin()
        return rows

    def _share(self) -> bool:
        """Give back what was leased together with a job that takes its time; only once.

        Called by the heartbeat's thread. Whatever the feed does with these jobs meanwhile, the
        fence says whose each of them is.
        """
        if self.rows.give_back_unbegun(list(self.claimed)):
            self.is_shared = True
            kicks.send_for_pool(self.rows.model, self.using)
        return False

    def _claim_some(self) -> list[Any]:
        """Lease what is next; for a kick's first batch that is one statement, where possible."""
        if self.is_first and claims.is_possible(self.using):
            self.is_first = False
            try:
                found = self._claim_batch(self._limit())
            except DataError:
                alone(self.using, lambda: first_claims.give_back_unknown(self.rows))
            except Exception as error:
                if not (isinstance(error, UnclaimableRow) or is_refusal(error)):
                    raise
            else:
                if found.rows:
                    self.has_begun = found.has_begun
                    self.pace.begin(len(found.rows))
                    return found.rows
                self.is_known_empty = found.is_empty
        return super()._claim_some()

    def _claim_batch(self, limit: int) -> first_claims.Batch:
        return alone(
            self.using,
            lambda: first_claims.claim_batch(self.rows, limit),
            again=lambda: self._claim_batch_again(limit),
        )

    def _claim_batch_again(self, limit: int) -> first_claims.Batch:
        self.has_lost_an_answer = True
        return first_claims.claim_batch_again(self.rows, limit)

    def _limit(self) -> int:
        return int(min(self.pace.next_batch(), self.most, max(self.budget.rows, 1)))

    def choose(self) -> list[Any]:
        limit = self._limit()
        chosen = [] if self.is_known_empty else self.rows.next_unlocked(limit)
        self.is_known_empty = False
        return chosen or self._deferred(limit)

    def next_apart(self) -> list[Any]:
        return self.rows.next_apart(MOST_AT_ONCE)

    def take_next(self) -> Any:
        if self.has_begun:
            self.has_begun = False
            return self.claimed.pop(0)
        return super().take_next()

    def _deferred(self, limit: int) -> list[Any]:
        """Return deferred jobs, unless one is ready that another worker is claiming just now."""
        deferred = self.rows.deferred().read_unlocked(limit)
        return [] if deferred and self.rows.has_ready() else deferred

    def hand_on(self, run: Run) -> Any:
        if not (run.leaves_lane and claims.is_possible(self.using)):
            return super().hand_on(run)
        following = self.claimed[0]

        def again() -> bool:
            run.settle_again()
            return bool(following.begin())

        begun = alone(
            self.using,
            lambda: handoff.settle_and_begin(run, following, self.using),
            again=again,
        )
        del self.claimed[0]
        return following if begun else None
