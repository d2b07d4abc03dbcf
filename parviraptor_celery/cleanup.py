"""Deletes processed jobs that are older than their queue keeps them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from . import registry
from .clock import local_now
from .conf import settings
from .deletion import delete_old
from .models import AbstractJob


def clean_all() -> int:
    """Clean every queue in every database; return the number of deleted rows."""
    deleted: list[int] = []
    registry.for_each_queue(lambda queue, using: deleted.append(clean(queue, using)))
    return sum(deleted)


def clean(
    queue: type[AbstractJob],
    using: str,
    progress: Callable[[int], None] = lambda deleted: None,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Delete the processed jobs of ``queue`` that are too old; return how many.

    Deletes CLEAN_CHUNK_ROWS rows per transaction and keeps no more than their ids in memory;
    ``progress`` is called with the running total after each. Only ``PROCESSED`` jobs are deleted,
    by the time of their last transition.
    """
    border = border_of(queue)
    if border is None:
        return 0
    old = queue.rows(using).processed_before(border)
    chunk_rows = settings.CLEAN_CHUNK_ROWS
    return delete_old(old, "modification_date", chunk_rows, progress, is_stopped)


def count_old(queue: type[AbstractJob], using: str) -> int:
    """Return how many rows ``clean`` would delete now."""
    border = border_of(queue)
    return 0 if border is None else queue.rows(using).processed_before(border).count()


def border_of(queue: type[AbstractJob]) -> datetime | None:
    """Return the moment before which processed jobs of ``queue`` go, or None: they stay."""
    days = queue.MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS
    return None if days is None else local_now() - timedelta(days=days)
