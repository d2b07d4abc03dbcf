"""Settles a job and goes on to the next one in a single statement, which PostgreSQL can.

A statement by itself is a transaction: one round trip and one commit for each job, where
BEGIN, two UPDATEs and COMMIT would take four. The feeds of other engines use transactions.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any

from . import claims
from .fencing import AT_REST
from .statements import update_of
from .states import JobStatus
from .unreadable import UnreadableRow

_FINISHED = "(SELECT count(*) FROM finished)"
_IS_FINISHED = "EXISTS (SELECT 1 FROM finished)"


def settle_and_claim(run: Any, rows: Any, lane: str) -> Any:
    """Settle ``run``, claim the head of its lane if it may run, and return it or None.

    Nothing is claimed unless the settlement found the job still ours; both happen or neither.
    The statement doesn't see jobs that are committed while it runs, so the lane has to be looked
    at once more when it found none.

    Raises:
        IntegrityError: the lane was taken in between; nothing was written.
    """
    using = rows.db
    claim = claims.of_head(rows, provided=_IS_FINISHED, select=_FINISHED)
    finish, finish_params, to, columns = _finish(run, using)
    params = {str(place): value for place, value in enumerate(finish_params)} | {"lane": lane}
    [(is_recorded, is_claimed, *row)] = claims.ask(using, _joined(finish, claim.sql), params)
    if run.has_settled(bool(is_recorded)):
        run.row.has_moved(to, columns)
    if not is_claimed:
        return None
    try:
        successor = claim.prepared.object_of(row)
    except UnreadableRow as error:
        rows.put_back(error)
        return None
    successor.hold()
    return successor


def settle_and_begin(run: Any, following: Any, using: str) -> bool:
    """Settle ``run`` and begin a row that was leased with it; return whether that is still ours."""
    finish, finish_params, to, columns = _finish(run, using)
    fence, renewed = following.renewal(following.BEGUN)
    begin, begin_params = update_of(type(following), using, fence, renewed)
    sql = f"""
        WITH finished AS ({finish} RETURNING 1), begun AS ({begin} RETURNING 1)
        SELECT {_FINISHED}, (SELECT count(*) FROM begun)"""  # noqa: S608
    [(is_recorded, is_begun)] = claims.ask(using, sql, [*finish_params, *begin_params])
    if run.has_settled(bool(is_recorded)):
        run.row.has_moved(to, columns)
    return bool(is_begun)


@functools.lru_cache(maxsize=1000)
def _joined(finish: str, claiming: str) -> str:
    """Return the whole statement; the places of its first part are named by their number."""
    places = itertools.count()
    named = re.sub("%s", lambda _: f"%({next(places)})s", finish)
    return f"WITH finished AS ({named} RETURNING 1), {claiming}"


def _finish(run: Any, using: str) -> tuple[str, list[Any], JobStatus, dict[str, Any]]:
    to, columns = run.transition()
    columns = AT_REST | columns
    fence, written = run.row.transition(to, columns)
    return *update_of(type(run.row), using, fence, written), to, columns
