"""What can go wrong, by name. The first group is raised by ``Job.process()``."""

from __future__ import annotations


class JobControl(Exception):
    """Base of what ``process()`` raises to choose an outcome other than ``PROCESSED``."""


class TemporaryJobFailure(JobControl):
    """The job failed for now: it goes back to ``NEW`` and runs again after its back-off.

    ``retry_after`` (seconds) overrides the queue's back-off for this one failure.
    """

    def __init__(
        self, message: str = "", error_count: int = 0, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.error_count = error_count
        self.retry_after = retry_after


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
        super().__init__(f"{label!r} is not a job queue here. Known queues: {listing}.")


class InvalidDependentField(QueueError, TypeError):
    """A queue names a dependent field that it doesn't have, or one that can't order jobs."""


class LaneChanged(QueueError, ValueError):
    """A dependent field was changed after the job had been created."""


class DuplicateUniqueKey(QueueError, ValueError):
    """A job with this ``unique_key`` is waiting already."""


class UnknownField(QueueError, TypeError):
    """``enqueue()`` was given a field that the queue doesn't have."""


class LeaseLost(QueueError):
    """The job is no longer ours: its lease ran out and somebody else took it."""


class IllegalTransition(QueueError, ValueError):
    """The job's state does not allow what was asked."""


class CauseStillFailed(QueueError, ValueError):
    """The job failed because of an earlier one, which has to be retried or ignored first."""
