"""What a sweep does with leased rows of any kind. Both apps use this module."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.db import router

from .database import in_transaction, is_refusal

logger = logging.getLogger("parviraptor_celery")

RESCUE_ROWS = 100


def rescue_expired(
    rows: Any, give_back: Callable[[Any], bool], announce: Callable[[Any], None]
) -> int:
    """Call ``give_back`` for every row whose lease ran out; return how many there were.

    A row that its own body keeps locked is left alone: whoever runs it is alive. One that can't
    be given back, for what it holds, is left alone too, and keeps no other from it.
    """

    def chunk() -> list[Any]:
        expired = list(rows.expired().unlocked()[:RESCUE_ROWS])
        return [row for row in expired if give_back(row)]

    total = 0
    try:
        while rescued := in_transaction(rows.db, chunk):
            total += len(rescued)
            for row in rescued:
                announce(row)
    except Exception as error:
        if not is_refusal(error):
            raise
        total += _rescue_one_by_one(rows, give_back, announce)
    return total


def _rescue_one_by_one(
    rows: Any, give_back: Callable[[Any], bool], announce: Callable[[Any], None]
) -> int:
    total, last = 0, 0
    expired_ids = rows.expired().values_list("pk", flat=True)
    while ids := list(expired_ids.filter(pk__gt=last)[:RESCUE_ROWS]):
        for last in ids:

            def one(pk: int = last) -> list[Any]:
                expired = list(rows.expired().filter(pk=pk).unlocked())
                return [row for row in expired if give_back(row)]

            try:
                rescued = in_transaction(rows.db, one)
            except Exception as error:
                if not is_refusal(error):
                    raise
                kind = type(error).__name__
                logger.error("%s %s can't be rescued (%s)", rows.model._meta.label, last, kind)
                continue
            total += len(rescued)
            for row in rescued:
                announce(row)
    return total


def next_lanes(
    rows: Any, statuses: tuple[str, ...], ticks: Any, name: str, limit: int
) -> list[dict[str, int]]:
    """Return, for each status, the next lanes in turn with the id of their head.

    Goes round: each sweep starts where the last one stopped, which the tick ``name`` keeps.
    """
    alias = router.db_for_write(ticks)
    start = ticks.cursor_of(name, alias)
    found, stop = heads_behind(rows, statuses, start, limit)
    if stop != start:
        ticks.save_cursor(name, stop, alias)
    return found


def heads_behind(
    rows: Any, statuses: tuple[str, ...], after: str, limit: int
) -> tuple[list[dict[str, int]], str]:
    """Return the lanes behind ``after`` for each status, and where to go on ("" at the end)."""
    found = [dict(rows.lane_heads(status, after=after, limit=limit)) for status in statuses]
    return found, min((max(heads) for heads in found if len(heads) == limit), default="")
