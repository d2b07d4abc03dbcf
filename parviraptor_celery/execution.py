"""Runs one claimed job and settles it: the body yields an outcome, the outcome a transition."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from django.db import InterfaceError, connections, transaction
from django.db.models.fields.files import FieldFile

from . import signals, stopping
from .conf import settings
from .database import ATTEMPTS, alone, is_transient
from .fencing import AT_REST
from .lanes import dependents_of, refuse_another_lane
from .leases import heartbeat
from .left_open import open_transactions, undo_left_open
from .models import AbstractJob
from .outcomes import (
    CLOSED,
    ENDS_OF_A_BODY,
    LEFT_OPEN,
    Failed,
    Ignored,
    NotProcessable,
    Outcome,
    Processed,
    Superseded,
    is_of_the_worker,
    outcome_of,
)
from .own_deletion import has_deleted_itself
from .settlement import transition_of
from .states import FailurePolicy, JobStatus
from .texts import describe, describe_with_traceback

logger = logging.getLogger("parviraptor_celery")


@dataclass
class Run:
    """A job that was run: how it ended, and what its body changed on it."""

    row: AbstractJob
    outcome: Outcome
    changes: dict[str, Any] = field(default_factory=dict)
    is_settled: bool = False
    is_recorded: bool = False
    """Whether the settlement found the job still ours."""

    pause: timedelta | None = None
    """How long the job waits now, when it was put back."""

    seen: tuple[int, Outcome] | None = None
    """The error count before this run, and its outcome before any threshold was applied."""

    @property
    def leaves_lane(self) -> bool:
        """Whether the next row may be claimed together with the settlement of this one.

        Not in a queue that squashes: there the lane is folded first.
        """
        if self.row.SQUASH_WAITING_JOBS:
            return False
        if isinstance(self.outcome, Failed):
            return self.row.FAILURE_POLICY is FailurePolicy.GO_ON
        return isinstance(self.outcome, Processed | Ignored)

    size: ClassVar[int] = 1

    @property
    def pauses_pool(self) -> bool:
        """Whether this is one of those of which several in a row end the run of a pool."""
        return isinstance(self.outcome, NotProcessable)

    def settle(self) -> bool:
        """Write the outcome; False when the job was no longer ours.

        Called inside a transaction, which may start again: ``announce`` follows afterwards.
        """
        to, columns = self.transition()
        return self.has_settled(self.row.rest(to, **columns))

    def settle_again(self) -> bool:
        """Settle when an earlier try may have gone through: then the outcome is recorded."""
        if self.settle():
            return True
        to, columns = self.transition()
        if not self.row.has_come_to(to):
            return False
        self.row.has_moved(to, AT_REST | columns)
        return self.has_settled(True)

    def transition(self) -> tuple[JobStatus, dict[str, Any]]:
        """Return the state that the job goes to, and the columns that go with it."""
        if self.seen is None:
            self.seen = self.row.error_count, self.outcome
        # As it was, should the transaction start again.
        self.row.status = JobStatus.PROCESSING
        self.row.error_count, self.outcome = self.seen
        return transition_of(self)

    def has_settled(self, is_recorded: bool) -> bool:
        """Note that the outcome was written, or that the job was no longer ours."""
        if self.row.status == JobStatus.SQUASHED:
            self.outcome, self.pause = Superseded(self.row.error_message), None
        self.is_recorded, self.is_settled = is_recorded, True
        if is_recorded:
            self.row.pk = self.row.claimed_pk  # whatever the body has made of it
        return is_recorded

    def refuse(self, error: Exception) -> None:
        """Fail the job because the database refuses what its body set on it."""
        self.changes, self.seen = {}, None
        self.outcome = Failed(describe(error), describe_with_traceback(error))

    def announce(self) -> None:
        """Send the signal of a settled run, outside of any transaction of the engine."""
        job = self.row
        if self.is_recorded:
            signals.tell(signals.job_finished, sender=type(job), job=job, outcome=self.outcome)
        elif not job.is_handed_back and job.pk is not None:  # its body may have deleted it
            signals.tell(signals.lease_lost, sender=type(job), job=job)


def run(job: AbstractJob) -> Run:
    """Run the body of a claimed job, renewing its lease; the body's errors become outcomes.

    The job of an ``atomic`` queue comes back settled, since body and completion share a
    transaction there.
    """
    signals.tell(signals.job_claimed, sender=type(job), job=job)
    kept = heartbeat.keep(job.keep_lease, settings.LEASE_SECONDS)
    with kept as hasten, job.progressing(hasten), stopping.heard_by(job):
        return _run_atomically(job) if job.atomic else _run_body(job)


def _run_atomically(job: AbstractJob) -> Run:
    """Run body and completion in one transaction; any other outcome undoes the body first.

    A deadlock or a serialization failure runs both again, at once, with the job as it was.
    """
    before, transactions = _own_values(job), open_transactions()
    for attempt in range(1, ATTEMPTS + 1):
        finished, committed = Run(job, Processed()), list[bool]()
        try:
            with transaction.atomic(using=job.alias):
                # The first hook, so it runs whatever the body's own hooks do.
                transaction.on_commit(functools.partial(committed.append, True), using=job.alias)
                finished = _run_body(job, reraise_transient=attempt < ATTEMPTS)
                is_closed = connections[job.alias].closed_in_transaction
                if is_closed and isinstance(finished.outcome, Processed):
                    finished = Run(job, Failed(CLOSED))  # to try again would do the same
                if not isinstance(finished.outcome, Processed):
                    raise _Undo
                if not finished.settle() and not _has_deleted_itself(job, transactions):
                    raise _Undo
        except _Undo:
            pass
        except Exception as error:
            if committed:
                logger.exception("%s %s: a hook of its body raised", job._meta.label, job.pk)
                return finished
            if finished.is_recorded and _is_committed_after_all(job):
                return finished
            if attempt < ATTEMPTS and _may_run_again(job, error):
                _restore(job, before)
                continue
            finished.refuse(error)
            finished.is_settled = False
        undo_left_open(transactions)
        if job.is_handed_back:
            _hand_back_again(job)
        elif not finished.is_settled:
            alone(job.alias, finished.settle, again=finished.settle_again)
        return finished
    raise AssertionError("unreachable")


def _may_run_again(job: AbstractJob, error: Exception) -> bool:
    """Return whether the body is to start again, which nobody else may have done meanwhile."""
    if not _may_pass(error):
        return False
    return alone(job.alias, lambda: job.held().exists())


def _may_pass(error: Exception) -> bool:
    """Return whether body and completion may succeed when they are tried again.

    Not when the body goes on with a connection that it closed itself.
    """
    return is_transient(error) and not isinstance(error, InterfaceError)


def _has_deleted_itself(job: AbstractJob, transactions: dict[str, int]) -> bool:
    has_done_so = has_deleted_itself(job, is_enclosed=bool(transactions.get(job.alias)))
    if has_done_so:
        job.pk = None  # as delete() of a model leaves it
    return has_done_so


def _is_committed_after_all(job: AbstractJob) -> bool:
    """Return whether body and completion are there, though their COMMIT was never answered."""
    return alone(job.alias, lambda: job.has_come_to(JobStatus.PROCESSED))


def _hand_back_again(job: AbstractJob) -> None:
    """Hand a job back that did so in its body, where that was undone with all the rest.

    It changes nothing if the job was handed back by another connection, and so for good.
    """
    job.status = JobStatus.PROCESSING
    job.update_job_for_being_resumed()


class _Undo(Exception):
    """Rolls the body of an atomic job back."""


def _run_body(job: AbstractJob, *, reraise_transient: bool = False) -> Run:
    before, transactions = _own_values(job), open_transactions()
    with _running_here(job, before):
        outcome = _outcome_of(job, reraise_transient)
    if undo_left_open(transactions) and isinstance(outcome, Processed):
        outcome = Failed(LEFT_OPEN)
    finished = Run(job, outcome)
    try:
        if not isinstance(outcome, Failed):
            refuse_another_lane(job, before)
        finished.changes = _changes(job, before)
    except Exception as error:
        finished.refuse(error)
    return finished


def _changes(job: AbstractJob, before: dict[str, Any]) -> dict[str, Any]:
    changed = [f for f in job.own_fields() if getattr(job, f.attname) != before[f.attname]]
    # pre_save() is where a file field writes its file.
    own = {field.attname: field.pre_save(job, False) for field in changed}
    return own | job.unwritten_progress()


def _own_values(job: AbstractJob) -> dict[str, Any]:
    own = {field.attname: _copied(getattr(job, field.attname)) for field in job.own_fields()}
    return own | dependents_of(job)


def _copied(value: Any) -> Any:
    """Return a copy to compare with; of a file its name, for it knows its job and all of that."""
    return value.name if isinstance(value, FieldFile) else copy.deepcopy(value)


def _restore(job: AbstractJob, values: dict[str, Any]) -> None:
    job.pk, job.status = job.claimed_pk, JobStatus.PROCESSING
    for name, value in values.items():
        setattr(job, name, copy.deepcopy(value))


def _outcome_of(job: AbstractJob, reraise_transient: bool) -> Outcome:
    try:
        if not job.is_processable():
            return NotProcessable()
        job.process()
    except Exception as error:
        if reraise_transient and _may_pass(error):
            raise
        return outcome_of(error)
    except ENDS_OF_A_BODY as error:
        if stopping.is_stopping() or is_of_the_worker(error):
            raise
        return outcome_of(error)
    return Processed()


@contextmanager
def _running_here(job: AbstractJob, before: dict[str, Any]) -> Iterator[None]:
    job._as_begun = before
    job._is_running_here = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        job._is_running_here = False  # type: ignore[attr-defined]
