"""The states of a job, and every transition between them."""

from __future__ import annotations

import enum
from typing import Any

from django.db import models
from django.db.models import Value


class JobStatus(models.TextChoices):
    """Where a job stands. The table below says which way it may go from there."""

    NEW = "NEW"
    """Waits for its turn, for its due time (``run_after``), or for both."""

    PROCESSING = "PROCESSING"
    """Leased by a worker until ``lease_until``; at most one job of a lane is in this state."""

    PROCESSED = "PROCESSED"
    """Done. Kept until the cleaner finds it too old."""

    SQUASHED = "SQUASHED"
    """Superseded by a newer job of its lane, or one with its unique key, before it ran."""

    FAILED = "FAILED"
    """Given up, with the reason in ``error_message``; holds its lane until a person decides."""

    IGNORED = "IGNORED"
    """Set aside on purpose; its lane goes on."""

    DEFERRED = "DEFERRED"
    """Steps behind the ``NEW`` jobs of its lane that are due."""


_S = JobStatus

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    _S.NEW: frozenset({_S.PROCESSING, _S.FAILED, _S.SQUASHED, _S.IGNORED}),
    _S.PROCESSING: frozenset(
        {_S.PROCESSED, _S.NEW, _S.DEFERRED, _S.FAILED, _S.IGNORED, _S.SQUASHED}
    ),
    _S.DEFERRED: frozenset({_S.PROCESSING, _S.NEW, _S.FAILED, _S.SQUASHED, _S.IGNORED}),
    _S.FAILED: frozenset({_S.NEW, _S.IGNORED, _S.SQUASHED}),
    _S.PROCESSED: frozenset(),
    _S.SQUASHED: frozenset(),
    _S.IGNORED: frozenset(),
}
"""From each state to the states that may follow. A final state has none: it is never rewritten."""

CLAIMABLE = (_S.NEW, _S.DEFERRED)
"""States that a worker may claim from."""


class Literal(Value):
    """A state written into the SQL itself, not sent as a parameter.

    Only so can a prepared statement's plan use the partial indexes of that state.
    """

    def __init__(self, status: str) -> None:
        super().__init__(str(status), output_field=models.CharField())

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[str | int, ...]]:
        if not self.value.isalpha():
            raise ValueError(f"{self.value!r} is not a state")
        return f"'{self.value}'", ()


@enum.unique
class FailurePolicy(enum.Enum):
    """What a ``FAILED`` job means for those that wait behind it in its lane."""

    FAIL_DEPENDENTS = enum.auto()
    """They fail too, newcomers included, until the cause is retried, ignored or deleted."""

    HOLD_LANE = enum.auto()
    """They wait until the failed job is retried, ignored or deleted."""

    GO_ON = enum.auto()
    """They run as if nothing had happened."""
