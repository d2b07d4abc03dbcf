"""What a kick finds is claimed by the statement that finds it, which PostgreSQL can.

A kick to an idle worker waits for each round trip: for the look at the head of a lane and for
its claim, or for the six of a batch without order.

If the answer of such a statement is lost, what it claimed is found by its lease: it is leased to
this thread, and its body has not begun here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections

from . import claims
from .claims import Claim
from .clock import kept, now
from .prepared import PreparedSelect, PreparedValues
from .statements import equations
from .states import JobStatus
from .unreadable import IDENTITY, UnreadableRow, reading

MOST_REMEMBERED = 1000

_unsettled: dict[tuple[type, str | None, int, int | None], None] = {}
"""Rows whose bodies run here, or have run and could not be settled."""


_LANE_IS_FREE = "NOT (SELECT lane_is_running FROM head)"
_ABOUT_HEAD = "EXISTS (SELECT 1 FROM head), (SELECT lane_is_running FROM head)"


@dataclass(frozen=True)
class Found:
    """What was claimed, if anything; otherwise what stood in the way."""

    row: Any = None
    is_empty: bool = False
    """No job of the lane was ``NEW``."""

    is_running: bool = False


def claim_head(rows: Any, lane: str) -> Found:
    """Claim the first ``NEW`` job of ``lane``, if it may run now.

    Raises:
        IntegrityError: another row of the lane was claimed meanwhile; nothing was written.
        DataError: the claim of this row can't be written.
    """
    claim = claims.of_head(rows, "lane_is_running", provided=_LANE_IS_FREE, select=_ABOUT_HEAD)
    [(is_there, is_running, is_claimed, *values)] = claims.ask(rows.db, claim.alone, {"lane": lane})
    if not is_claimed:
        return Found(is_empty=not is_there, is_running=bool(is_running))
    return Found(next(_held(rows, claim, [values]), None))


@dataclass(frozen=True)
class Batch:
    """What was leased of an independent queue, next first; ``has_begun``: the first has begun."""

    rows: list[Any]
    has_begun: bool = False
    is_empty: bool = False
    """Nothing was ready that nobody else had locked."""


def claim_batch(rows: Any, limit: int) -> Batch:
    """Lease the first ``limit`` jobs that have no due time, and begin the first of them.

    Nothing, where a job has come due: then both kinds have to be compared.

    Raises:
        DataError: one of the claims can't be written; nothing was.
    """
    claim = _of_batch(*claims.about(rows), limit)
    found = claims.ask(rows.db, claim.alone, {})
    has_due, *_, first, _ = found[0]
    if first is None:
        return Batch([], is_empty=not has_due)
    begun = {pk for *_, pk, has_begun in found if has_begun}
    jobs = list(_held(rows, claim, [columns for _, *columns, _, _ in found]))
    return _in_turn(jobs, {job.pk for job in jobs} & begun)


def claim_batch_again(rows: Any, limit: int) -> Batch:
    """Lease when an earlier try may have gone through: then its jobs are ours already."""
    with reading(rows.model):
        held = [row for row in rows.held_here() if not _has_begun(row)]
    if not held:
        return claim_batch(rows, limit)
    for row in held:
        row.hold()
    return _in_turn(held, {row.pk for row in held if row.begun_at is not None})


def _in_turn(jobs: list[Any], begun: set[int]) -> Batch:
    jobs.sort(key=lambda job: (job.pk not in begun, -job.priority, job.pk))
    return Batch(jobs, has_begun=bool(begun))


def claim_head_again(rows: Any, lane: str) -> Found:
    """Claim when an earlier try may have gone through: then the job is ours already."""
    row = rows.read_held(lane)
    if row is None or _has_begun(row):
        found = claim_head(rows, lane)
        if found.row is not None:
            return found
        # The earlier try may have been on its way still, and this one waited for it.
        row = rows.read_held(lane)
        if row is None or _has_begun(row):
            return found
    row.hold()
    return Found(row)


def give_back_unknown(rows: Any) -> None:
    """Let wait again what a claim leased here and nobody here knows of.

    Its answer was lost, or the driver can't read it: a date past all dates.
    """
    for row in list(rows.held_here().only(*IDENTITY)):
        if not _has_begun(row):
            row.put_back()


def begins(row: Any) -> None:
    """Remember that the body of a row begins, which is not settled yet."""
    _unsettled[type(row), row._state.db, row.claimed_pk, row.token] = None
    if len(_unsettled) > MOST_REMEMBERED:
        with contextlib.suppress(KeyError, RuntimeError):  # another thread is about it, too
            del _unsettled[next(iter(_unsettled))]


def is_settled(row: Any) -> None:
    """Forget a row whose outcome was recorded."""
    _unsettled.pop((type(row), row._state.db, row.claimed_pk, row.token), None)


def _has_begun(row: Any) -> bool:
    return (type(row), row._state.db, row.pk, row.attempt) in _unsettled


@kept
def _of_batch(
    kind: Any, model: Any, using: str, _identity: str, _variant: object, limit: int
) -> Claim:
    rows, connection = kind(model, using=using), connections[using]
    # Django refuses to compose a lock outside of a transaction, which a statement by itself is.
    prepared = PreparedSelect(rows.at_once().defer(*kind.UNREAD)[:limit])
    due = PreparedValues(rows.come_due().values("id")[:1])
    ready = PreparedValues(rows.at_once().values("id")[:limit])
    quote = connection.ops.quote_name
    table, key, attempt, status = map(quote, (model._meta.db_table, "id", "attempt", "status"))
    leased = {"status": model.LEASED, model.STAMP: now()} | model.lease_columns()
    claim, params = equations(model, connection, leased)
    [begun], moment = equations(model, connection, model.BEGUN)
    column, _, begins = begun.partition(" = ")
    sql = f"""due AS ({due.sql}), ready AS ({ready.sql} FOR UPDATE SKIP LOCKED), leased AS (
            UPDATE {table} SET {", ".join(claim)}, {attempt} = {attempt} + 1,
            {column} = CASE WHEN {key} = (SELECT {key} FROM ready LIMIT 1) THEN {begins} END
            WHERE {key} = ANY (ARRAY(SELECT {key} FROM ready)) AND COALESCE({status}, '') = %s
            AND NOT EXISTS (SELECT 1 FROM due)
            RETURNING {", ".join(map(quote, prepared.columns))}, {key}, {column} IS NOT NULL)
        SELECT EXISTS (SELECT 1 FROM due), leased.*
        FROM (SELECT 1) AS one LEFT JOIN leased ON true"""  # noqa: S608
    waiting = str(JobStatus.NEW)
    params = [*due.params, *ready.params, *params, *moment, waiting]
    return Claim(prepared, claims.written_out(connection, sql, params))


def _held(rows: Any, claim: Claim, found: list[Any]) -> Iterator[Any]:
    """Yield the claimed jobs; one that can't be read waits a minute for another worker."""
    for values in found:
        try:
            row = claim.prepared.object_of(values)
        except UnreadableRow as error:
            rows.put_back(error)
            continue
        row.hold()
        yield row
