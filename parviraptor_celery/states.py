"""The states of a job, and every transition between them."""

from __future__ import annotations

from django.db import models


class JobStatus(models.TextChoices):
    """Where a job stands. The table below says which way it may go from there."""

    NEW = "NEW"
    """Waits for its turn, for its due time (``run_after``), or for both."""

    PROCESSING = "PROCESSING"
    """Leased by a worker until ``lease_until``; at most one job of a lane is in this state."""

    PROCESSED = "PROCESSED"
    """Done. Kept until the cleaner finds it too old."""

    SQUASHED = "SQUASHED"
    """Superseded by a newer job of its lane before it ran."""

    FAILED = "FAILED"
    """Given up, with the reason in ``error_message``; holds its lane until a person decides."""

    IGNORED = "IGNORED"
    """Set aside on purpose; its lane goes on."""

    DEFERRED = "DEFERRED"
    """Steps behind the ``NEW`` jobs of its lane that are due."""


_S = JobStatus

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    _S.NEW: frozenset({_S.PROCESSING, _S.FAILED, _S.SQUASHED, _S.IGNORED}),
    _S.PROCESSING: frozenset({_S.PROCESSED, _S.NEW, _S.DEFERRED, _S.FAILED, _S.IGNORED}),
    _S.DEFERRED: frozenset({_S.PROCESSING, _S.NEW, _S.FAILED, _S.SQUASHED, _S.IGNORED}),
    _S.FAILED: frozenset({_S.NEW, _S.IGNORED}),
    _S.PROCESSED: frozenset(),
    _S.SQUASHED: frozenset(),
    _S.IGNORED: frozenset(),
}
"""From each state to the states that may follow. A final state has none: it is never rewritten."""

CLAIMABLE = (_S.NEW, _S.DEFERRED)
"""States that a worker may claim from."""
