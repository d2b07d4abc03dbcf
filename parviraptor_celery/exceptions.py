"""What can go wrong, by name. The first group is raised by ``Job.process()``."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.utils.connection import ConnectionDoesNotExist

from .texts import shown


class JobControl(Exception):
    """Base of what ``process()`` raises to choose an outcome other than ``PROCESSED``."""


class TemporaryJobFailure(JobControl):
    """The job failed for now: it goes back to ``NEW`` and runs again after its back-off.

    ``retry_after`` (seconds, or a timedelta) replaces the queue's back-off for this one failure;
    the pause is between zero and a year, and ``nan`` means none.

    Raises:
        TypeError: ``retry_after`` is no number. The job fails, with this as its reason.
    """

    def __init__(
        self,
        message: str = "",
        error_count: int = 0,
        *,
        retry_after: float | timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.error_count = error_count
        self.retry_after = None if retry_after is None else _seconds(retry_after)


def _seconds(pause: Any) -> float:
    if isinstance(pause, timedelta):
        return pause.total_seconds()
    if isinstance(pause, bool) or not isinstance(pause, int | float | Decimal):
        raise TypeError(
            f"retry_after must be a number of seconds or a timedelta, not a {type(pause).__name__}."
        )
    try:
        return float(pause)
    except OverflowError:
        return math.inf if pause > 0 else -math.inf


class DeferJob(JobControl):
    """The job steps behind the ``NEW`` jobs of its lane that are due."""


class IgnoreJob(JobControl):
    """The job is set aside as ``IGNORED``; its lane goes on."""


class InvalidJobError(JobControl):
    """The job can never succeed: ``FAILED`` at once, without a traceback."""


class UnprocessableJob(JobControl):
    """The job can't run at the moment: back to ``NEW``, uncounted, its lane pauses a minute."""


class QueueError(Exception):
    """Base of the errors that the library itself raises."""


class UnknownQueue(QueueError, LookupError):
    """The name does not belong to a queue that this process knows."""

    def __init__(self, label: object, known: list[str]) -> None:
        listing = ", ".join(known) or "none"
        super().__init__(f"{shown(label)} is not a job queue here. Known queues: {listing}.")


class InvalidDependentField(QueueError, TypeError):
    """A queue names a dependent field that it doesn't have, or one that can't order jobs."""


class InvalidDependentValue(InvalidDependentField, ValueError):
    """A job's value in a dependent field can't be stored there, so it can't name a lane."""


class MissingDependentField(InvalidDependentValue):
    """A job was not given a value that decides in which lane it runs."""


class InvalidJobOption(QueueError, ValueError):
    """``status``, ``run_after``, ``priority`` or ``unique_key`` is none that can be stored."""


class NotANewJob(QueueError, TypeError):
    """Something other than a new job of the queue was to be inserted into it."""


class UnknownDatabase(QueueError, ConnectionDoesNotExist):
    """``using`` is not an alias of ``DATABASES``."""


class LaneChanged(QueueError, ValueError):
    """A dependent field was changed after the job had been created."""


class DuplicateUniqueKey(QueueError, ValueError):
    """A job with this ``unique_key`` is waiting already."""


class UnknownField(QueueError, TypeError):
    """``enqueue()`` was given a field that the queue doesn't have."""


class NotALane(QueueError, TypeError):
    """The values given don't name exactly one lane of the queue."""


class CanNotPause(QueueError):
    """The database of the jobs has no table for pauses, or the pause itself can't be stored."""


class InvalidProgress(QueueError, ValueError):
    """``set_progress()`` was given numbers or a note that make no sense."""


class LeaseLost(QueueError):
    """The job is no longer ours: its lease ran out and somebody else took it."""


class IllegalTransition(QueueError, ValueError):
    """The job's state does not allow what was asked."""


class CauseStillFailed(QueueError, ValueError):
    """The job failed because of an earlier one, which has to be retried or ignored first."""
