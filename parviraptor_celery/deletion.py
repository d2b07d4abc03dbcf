"""Deletes old rows, chunk by chunk. Both apps use this module."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet

from .database import alone

STORED_ROUNDING = timedelta(milliseconds=1)
"""SQLite's clock writes milliseconds, as text that sorts before the same in microseconds."""


def delete_old(
    rows: Any,
    moment: str,
    chunk_rows: int,
    progress: Callable[[int], None] = lambda deleted: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Delete ``rows``, those first whose column ``moment`` is oldest; return how many.

    ``rows`` says which may go, and is asked again in each DELETE: a row that changed meanwhile
    stays. Each chunk is a transaction of its own, starts where the one before ended, and costs
    the same: what was deleted stays in the index for a while, and looking from the start each time
    would step over all of it. ``progress`` gets the running total after each chunk, and
    ``is_stopped`` is asked before each. Memory holds the ids of one chunk.
    """
    deleted, after = 0, None
    while not is_stopped():
        chunk = _next_chunk(rows, moment, after, chunk_rows)
        if not chunk:
            break
        count = _delete(rows, [pk for pk, _ in chunk])
        if not count:
            break  # another cleaner is at the same rows
        after = chunk[-1][1]
        deleted += count
        progress(deleted)
    return deleted


def _next_chunk(
    rows: Any, moment: str, after: datetime | None, chunk_rows: int
) -> list[tuple[Any, datetime]]:
    """Return key and moment of the next rows.

    Of many rows with the same moment some may be left, so its own are looked at again.
    """
    if after is not None:
        rows = rows.filter(**{f"{moment}__gte": after - STORED_ROUNDING})
    chunk = rows.order_by(moment).values_list("pk", moment)[:chunk_rows]
    return alone(rows.db, lambda: list(chunk.all()))


def _delete(rows: Any, ids: list[Any]) -> int:
    """Return the number of rows deleted, without those of other tables that went along.

    By Django's own method: a queue's would ask each time who waited for them, and nobody does.
    """
    _, by_model = alone(rows.db, lambda: QuerySet.delete(rows.filter(pk__in=ids)))
    return int(by_model.get(rows.model._meta.label, 0))
