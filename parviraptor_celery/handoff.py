"""Settles a job and goes on to the next one in a single statement, which PostgreSQL can.

A statement by itself is a transaction: one round trip and one commit for each job, where
BEGIN, two UPDATEs and COMMIT would take four. What may be claimed is asked by the same query
as everywhere, ``LeasedQuerySet.as_candidates()``.

Other engines have no UPDATE inside a WITH; their feeds use transactions.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from typing import Any

from django.db import connections

from . import sessions
from .clock import kept, now
from .fencing import AT_REST
from .leased import ANY_LANE
from .leases import worker_identity
from .prepared import PreparedSelect
from .statements import equations, update_of
from .states import JobStatus
from .unreadable import UnreadableRow


def is_possible(using: str) -> bool:
    """Return whether the engine of ``using`` takes an UPDATE inside a WITH."""
    return connections[using].vendor == "postgresql"


def settle_and_claim(run: Any, rows: Any, lane: str) -> Any:
    """Settle ``run``, claim the head of its lane if it may run, and return it or None.

    Nothing is claimed unless the settlement found the job still ours; both happen or neither.
    The statement doesn't see jobs that are committed while it runs, so the lane has to be looked
    at once more when it found none.

    Raises:
        IntegrityError: the lane was taken in between; nothing was written.
    """
    queue, using = rows.model, rows.db
    variant = queue.lease_seconds(), rows.variant()
    form = _claiming(rows.__class__, queue, using, worker_identity(), variant)
    finish, finish_params, to, columns = _finish(run, using)
    params = {str(place): value for place, value in enumerate(finish_params)} | {"lane": lane}
    is_recorded, *row = _first(using, _joined(finish, form.sql), params)
    if run.has_settled(bool(is_recorded)):
        run.row.has_moved(to, columns)
    if row[0] is None:
        return None
    try:
        successor = form.prepared.object_of(row)
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
        SELECT (SELECT count(*) FROM finished), (SELECT count(*) FROM begun)"""  # noqa: S608
    is_recorded, is_begun = _first(using, sql, [*finish_params, *begin_params])
    if run.has_settled(bool(is_recorded)):
        run.row.has_moved(to, columns)
    return bool(is_begun)


_MAY_RUN = "is_due AND held_by IS NULL AND NOT is_paused"


@dataclass(frozen=True)
class _Claiming:
    """The part of the statement that claims, which is the same for every job of a queue.

    All that it needs to be told is the lane, once; what else goes into it is written out.
    """

    prepared: PreparedSelect
    sql: str


@kept
def _claiming(kind: Any, model: Any, using: str, _identity: str, _variant: object) -> _Claiming:
    """Return the claiming part; what it says of leases and pauses changes with the last two."""
    rows = kind(model, using=using)
    prepared = rows.prepared_candidate(JobStatus.NEW)
    head = rows.prepared_head(JobStatus.NEW)
    quote = connections[using].ops.quote_name
    table, key, attempt, status = map(quote, (model._meta.db_table, "id", "attempt", "status"))
    begun = {"status": model.LEASED, "running_lane": ANY_LANE, model.STAMP: now()}
    claim, params = equations(
        model, connections[using], begun | model.lease_columns() | model.BEGUN
    )
    # Subselects rather than a join, and a status that fits no partial index, leave the planner
    # no choice but the primary key, however little it knows about the table.
    sql = f"""head AS ({head.sql}), claimed AS (
            UPDATE {table} SET {", ".join(claim)}, {attempt} = {attempt} + 1
            WHERE {key} = (SELECT {key} FROM head WHERE {_MAY_RUN})
            AND {attempt} = (SELECT {attempt} FROM head) AND COALESCE({status}, '') = %s
            AND EXISTS (SELECT 1 FROM finished)
            RETURNING {", ".join(map(quote, prepared.columns))})
        SELECT (SELECT count(*) FROM finished), claimed.*
        FROM (SELECT 1) AS one LEFT JOIN claimed ON true"""  # noqa: S608
    params = [*head.params, *params, str(JobStatus.NEW)]
    return _Claiming(prepared, _written_out(connections[using], sql, params))


def _written_out(connection: Any, sql: str, params: list[Any]) -> str:
    """Return ``sql`` with every parameter in it but the lane, which gets a name."""
    written: str = connection.ops.compose_sql(sql, params)
    return written.replace("%", "%%").replace(f"'{ANY_LANE}'", "%(lane)s")


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


def _first(using: str, sql: str, params: Any) -> Any:
    with sessions.cursor(using) as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()
