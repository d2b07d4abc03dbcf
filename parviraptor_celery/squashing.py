"""Folds a lane: the newest job that could run supersedes those that wait before it."""

from __future__ import annotations

from typing import Any

from . import signals
from .database import in_transaction
from .states import CLAIMABLE

SQUASH_CHUNK = 500


def fold(rows: Any, head: Any) -> int:
    """Squash the next of the jobs that wait before the newest due one; return how many.

    ``head`` is the first ``NEW`` job of its lane and could run. At most ``SQUASH_CHUNK`` jobs go
    at once, in the order of their ids, due or not. Nobody can claim or cancel ``head`` or the
    newest meanwhile: both are locked, and nothing happens if either is no longer waiting.
    """

    def squash() -> tuple[int, int]:
        newest = rows.newest_due(head)
        if newest is None or not rows.are_waiting_locked({head.pk, newest}):
            return 0, 0
        for status in CLAIMABLE:
            earlier = rows.waiting_before(head.lane, status, newest)
            if ids := list(earlier.values_list("id", flat=True)[:SQUASH_CHUNK]):
                return newest, rows.filter(id__in=ids).supersede(newest)
        return newest, 0

    newest, count = in_transaction(rows.db, squash)
    if count:
        signals.tell(
            signals.jobs_squashed, sender=rows.model, lane=head.lane, newest_id=newest, rows=count
        )
    return count
