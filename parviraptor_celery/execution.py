"""Runs one claimed job and settles it: the body yields an outcome, the outcome a transition."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from django.db import OperationalError, transaction

from . import signals
from .backoff import bounded, job_delay
from .clock import from_now
from .conf import settings
from .database import ATTEMPTS, alone, is_transient, restore_autocommit
from .exceptions import (
    DeferJob,
    IgnoreJob,
    InvalidJobError,
    TemporaryJobFailure,
    UnprocessableJob,
)
from .leases import heartbeat
from .models import AbstractJob
from .states import JobStatus
from .texts import describe, describe_with_traceback

PAUSE_OF_UNPROCESSABLE = timedelta(minutes=1)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    log_level: ClassVar[int] = logging.INFO
    message: str = ""


@dataclass(frozen=True)
class Processed(Outcome):
    log_level = logging.DEBUG


@dataclass(frozen=True)
class Ignored(Outcome):
    pass


@dataclass(frozen=True)
class Deferred(Outcome):
    pass


@dataclass(frozen=True)
class NotProcessable(Outcome):
    pass


@dataclass(frozen=True)
class TemporarilyFailed(Outcome):
    log_level = logging.WARNING
    retry_after: float | None = None


@dataclass(frozen=True)
class Failed(Outcome):
    log_level = logging.ERROR
    details: str = ""


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
        return isinstance(self.outcome, Processed | Ignored)

    size: ClassVar[int] = 1

    @property
    def pauses_pool(self) -> bool:
        return isinstance(self.outcome, NotProcessable)

    def settle(self) -> bool:
        """Write the outcome; False when the job was no longer ours.

        Called inside a transaction, which may start again: ``announce`` follows afterwards.
        """
        if self.seen is None:
            self.seen = self.row.error_count, self.outcome
        # As it was, should the transaction start again.
        self.row.status = JobStatus.PROCESSING
        self.row.error_count, self.outcome = self.seen
        self.is_recorded = _transition(self)
        self.is_settled = True
        return self.is_recorded

    def refuse(self, error: Exception) -> None:
        """Fail the job because the database refuses what its body set on it."""
        self.changes, self.seen = {}, None
        self.outcome = Failed(describe(error), describe_with_traceback(error))

    def announce(self) -> None:
        """Send the signal of a settled run, outside of any transaction of the engine."""
        job = self.row
        if self.is_recorded:
            signals.tell(signals.job_finished, sender=type(job), job=job, outcome=self.outcome)
        else:
            signals.tell(signals.lease_lost, sender=type(job), job=job)


def run(job: AbstractJob) -> Run:
    """Run the body of a claimed job, renewing its lease; the body's errors become outcomes.

    The job of an ``atomic`` queue comes back settled, since body and completion share a
    transaction there.
    """
    signals.tell(signals.job_claimed, sender=type(job), job=job)
    with heartbeat.keep(job.keep_lease, settings.LEASE_SECONDS):
        return _run_atomically(job) if job.atomic else _run_body(job)


def _transition(finished: Run) -> bool:
    job, changes, message = finished.row, finished.changes, finished.outcome.message
    match finished.outcome:
        case Processed():
            return job.rest(JobStatus.PROCESSED, **{"error_message": ""} | changes)
        case Ignored():
            return job.rest(JobStatus.IGNORED, error_message=message, **changes)
        case NotProcessable():
            return _wait(finished, PAUSE_OF_UNPROCESSABLE)
        case Deferred() if job.error_count >= job.DEFERRED_RETRY_THRESHOLD:
            return _give_up(finished, "deferred retry threshold exceeded")
        case Deferred():
            return job.rest(
                JobStatus.DEFERRED,
                error_message=message,
                error_count=job.error_count + 1,
                **changes,
            )
        case TemporarilyFailed() if job.error_count >= job.TEMPORARY_FAILURE_THRESHOLD:
            return _give_up(finished, "error count reached threshold")
        case TemporarilyFailed(retry_after=seconds):
            pause = job_delay(job.BACKOFF_STRATEGY, job.BACKOFF_STEP_MINUTES, job.error_count)
            if seconds is not None:
                pause = bounded(seconds)
            return _wait(finished, pause, error_message=message, error_count=job.error_count + 1)
        case Failed(details=details):
            return job.rest(
                JobStatus.FAILED, error_message=message, error_traceback=details, **changes
            )
    raise AssertionError(f"no transition for {finished.outcome!r}")


def _wait(finished: Run, pause: timedelta, **columns: Any) -> bool:
    finished.pause = pause
    return finished.row.put_back(run_after=from_now(pause), **columns, **finished.changes)


def _give_up(finished: Run, reason: str) -> bool:
    job = finished.row
    finished.outcome = Failed(f"{reason}: {finished.outcome.message}")
    return job.rest(
        JobStatus.FAILED,
        error_message=finished.outcome.message,
        error_count=job.error_count + 1,
        **finished.changes,
    )


def _run_atomically(job: AbstractJob) -> Run:
    """Run body and completion in one transaction; any other outcome undoes the body first.

    A deadlock or a serialization failure runs both again, at once, with the job as it was.
    """
    before = _own_values(job)
    for attempt in range(1, ATTEMPTS + 1):
        finished = Run(job, Processed())
        try:
            with transaction.atomic(using=job.alias):
                finished = _run_body(job, reraise_transient=attempt < ATTEMPTS)
                if not isinstance(finished.outcome, Processed) or not finished.settle():
                    raise _Undo
        except _Undo:
            pass
        except Exception as error:
            if attempt < ATTEMPTS and isinstance(error, OperationalError) and is_transient(error):
                _restore(job, before)
                continue
            finished.refuse(error)
            finished.is_settled = False
        if not finished.is_settled:
            alone(job.alias, finished.settle)
        return finished
    raise AssertionError("unreachable")


class _Undo(Exception):
    """Rolls the body of an atomic job back."""


def _run_body(job: AbstractJob, *, reraise_transient: bool = False) -> Run:
    before = _own_values(job)
    with _running_here(job):
        outcome = _outcome_of(job, reraise_transient)
    restore_autocommit()
    finished = Run(job, outcome)
    try:
        finished.changes = _changes(job, before)
    except Exception as error:
        finished.refuse(error)
    return finished


def _changes(job: AbstractJob, before: dict[str, Any]) -> dict[str, Any]:
    changed = [f for f in job.own_fields() if getattr(job, f.attname) != before[f.attname]]
    # pre_save() is where a file field writes its file.
    return {field.attname: field.pre_save(job, False) for field in changed}


def _own_values(job: AbstractJob) -> dict[str, Any]:
    return {f.attname: copy.deepcopy(getattr(job, f.attname)) for f in job.own_fields()}


def _restore(job: AbstractJob, values: dict[str, Any]) -> None:
    job.status = JobStatus.PROCESSING
    for name, value in values.items():
        setattr(job, name, copy.deepcopy(value))


def _outcome_of(job: AbstractJob, reraise_transient: bool) -> Outcome:
    try:
        if not job.is_processable():
            return NotProcessable()
        job.process()
    except TemporaryJobFailure as failure:
        return TemporarilyFailed(describe(failure), failure.retry_after)
    except DeferJob as request:
        return Deferred(describe(request))
    except IgnoreJob as request:
        return Ignored(describe(request))
    except UnprocessableJob as request:
        return NotProcessable(describe(request))
    except InvalidJobError as error:
        return Failed(describe(error))
    except Exception as error:
        if reraise_transient and isinstance(error, OperationalError) and is_transient(error):
            raise
        return Failed(describe(error), describe_with_traceback(error))
    return Processed()


@contextmanager
def _running_here(job: AbstractJob) -> Iterator[None]:
    job._is_running_here = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        job._is_running_here = False  # type: ignore[attr-defined]
