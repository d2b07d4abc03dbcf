"""Which transition each outcome of a run is: the state that the job goes to, and its columns."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .backoff import bounded, job_delay
from .clock import from_now
from .fencing import one_more
from .outcomes import (
    Deferred,
    Failed,
    Ignored,
    NotProcessable,
    Processed,
    TemporarilyFailed,
)
from .states import JobStatus

if TYPE_CHECKING:
    from .execution import Run
    from .models import AbstractJob

PAUSE_OF_UNPROCESSABLE = timedelta(minutes=1)


def transition_of(finished: Run) -> tuple[JobStatus, dict[str, Any]]:
    job, changes, message = finished.row, finished.changes, finished.outcome.message
    match finished.outcome:
        case Processed():
            return JobStatus.PROCESSED, {"error_message": ""} | changes
        case Ignored():
            return JobStatus.IGNORED, {"error_message": message} | changes
        case NotProcessable():
            return _wait(finished, PAUSE_OF_UNPROCESSABLE)
        case Deferred() if job.error_count >= job.DEFERRED_RETRY_THRESHOLD:
            return _give_up(finished, "deferred retry threshold exceeded")
        case Deferred():
            counted = {"error_message": message, "error_count": one_more(job.error_count)}
            return JobStatus.DEFERRED, counted | changes
        case TemporarilyFailed() if job.error_count >= job.TEMPORARY_FAILURE_THRESHOLD:
            return _give_up(finished, "error count reached threshold")
        case TemporarilyFailed(retry_after=seconds):
            pause = _back_off(job) if seconds is None else bounded(seconds)
            errors = one_more(job.error_count)
            return _wait(finished, pause, error_message=message, error_count=errors)
        case Failed(details=details):
            described = {"error_message": message, "error_traceback": details}
            return JobStatus.FAILED, described | changes
    raise AssertionError(f"no transition for {finished.outcome!r}")


def _back_off(job: AbstractJob) -> timedelta:
    return job_delay(
        job.BACKOFF_STRATEGY,
        job.BACKOFF_STEP_MINUTES,
        job.error_count,
        cap_minutes=job.BACKOFF_CAP_MINUTES,
        jitter=job.BACKOFF_JITTER,
    )


def _wait(finished: Run, pause: timedelta, **columns: Any) -> tuple[JobStatus, dict[str, Any]]:
    finished.pause = pause
    waiting = {**finished.row.UNBEGUN, "run_after": from_now(pause)}
    return JobStatus.NEW, waiting | columns | finished.changes


def _give_up(finished: Run, reason: str) -> tuple[JobStatus, dict[str, Any]]:
    job = finished.row
    finished.outcome = Failed(f"{reason}: {finished.outcome.message}")
    counted = {"error_message": finished.outcome.message, "error_count": one_more(job.error_count)}
    return JobStatus.FAILED, counted | finished.changes
