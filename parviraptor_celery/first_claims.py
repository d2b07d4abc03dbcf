"""What a kick finds is claimed by the statement that finds it, which PostgreSQL can.

A kick to an idle worker waits for each round trip: for the look at the head of a lane and for
its claim, or for the six of a batch without order. What may be claimed is asked by the queries
that everybody uses; other engines have no UPDATE inside a WITH, and take the steps one by one.

If the answer of such a statement is lost, what it claimed is found by its lease: it is leased to
this thread, and its body has not begun here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections

from . import sessions
from .clock import kept, now
from .leased import ANY_LANE
from .leases import worker_identity
from .prepared import PreparedSelect, PreparedValues
from .statements import equations
from .states import JobStatus
from .unreadable import UnreadableRow, reading

MOST_REMEMBERED = 1000

_unsettled: dict[tuple[type, str | None, int, int | None], None] = {}
"""Rows whose bodies run here, or have run and could not be settled."""


@dataclass(frozen=True)
class Found:
    """What was claimed, if anything; otherwise what stood in the way."""

    row: Any = None
    is_empty: bool = False
    """No job of the lane was ``NEW``."""

    is_running: bool = False


def is_possible(using: str) -> bool:
    """Return whether the engine of ``using`` takes an UPDATE inside a WITH."""
    return connections[using].vendor == "postgresql"


def claim_head(rows: Any, lane: str) -> Found:
    """Claim the first ``NEW`` job of ``lane``, if it may run now.

    Raises:
        IntegrityError: another row of the lane was claimed meanwhile; nothing was written.
        DataError: the claim of this row can't be written.
    """
    form = _head_form(*_about(rows))
    is_there, is_running, *values = _ask(form, rows.db, form.filled(lane))[0]
    if values[0] is None:
        return Found(is_empty=not is_there, is_running=bool(is_running))
    return Found(next(_held(rows, form, [values]), None))


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
    form = _batch_form(*_about(rows), limit)
    (has_due, *values), *more = _ask(form, rows.db, form.params)
    if values[0] is None:
        return Batch([], is_empty=not has_due)
    found = [values, *(each[1:] for each in more)]
    begun = {each[-2] for each in found if each[-1]}
    jobs = list(_held(rows, form, [each[:-2] for each in found]))
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
        return claim_head(rows, lane)
    row.hold()
    return Found(row)


def begins(row: Any) -> None:
    """Remember that the body of a row begins, which is not settled yet."""
    _unsettled[type(row), row._state.db, row.claimed_pk, row.token] = None
    if len(_unsettled) > MOST_REMEMBERED:
        del _unsettled[next(iter(_unsettled))]


def is_settled(row: Any) -> None:
    """Forget a row whose outcome was recorded."""
    _unsettled.pop((type(row), row._state.db, row.claimed_pk, row.token), None)


def _has_begun(row: Any) -> bool:
    return (type(row), row._state.db, row.pk, row.attempt) in _unsettled


@dataclass(frozen=True)
class _Form:
    """A statement that claims, which is the same for every kick of a queue."""

    prepared: PreparedSelect
    sql: str
    params: list[Any]

    def filled(self, lane: str) -> list[Any]:
        return [lane if param == ANY_LANE else param for param in self.params]


def _about(rows: Any) -> tuple[Any, ...]:
    """Return what the SQL depends on: leases and pauses are two of it."""
    queue = rows.model
    return (
        rows.__class__,
        queue,
        rows.db,
        worker_identity(),
        (queue.lease_seconds(), rows.variant()),
    )


@kept
def _head_form(kind: Any, model: Any, using: str, _identity: str, _variant: object) -> _Form:
    rows = kind(model, using=using)
    prepared = rows.prepared_candidate(JobStatus.NEW)
    head = rows.prepared_head(JobStatus.NEW, "lane_is_running")
    quote = connections[using].ops.quote_name
    table, key, attempt, status = map(quote, (model._meta.db_table, "id", "attempt", "status"))
    begun = {"status": model.LEASED, "running_lane": ANY_LANE, model.STAMP: now()}
    claim, params = equations(
        model, connections[using], begun | model.lease_columns() | model.BEGUN
    )
    # As in the hand-off: subselects rather than a join, and a status that fits no partial index,
    # leave the planner no choice but the primary key.
    sql = f"""WITH head AS ({head.sql}), claimed AS (
            UPDATE {table} SET {", ".join(claim)}, {attempt} = {attempt} + 1
            WHERE {key} = (SELECT {key} FROM head WHERE is_due AND held_by IS NULL
                           AND NOT is_paused AND NOT lane_is_running)
            AND {attempt} = (SELECT {attempt} FROM head) AND COALESCE({status}, '') = %s
            RETURNING {", ".join(map(quote, prepared.columns))})
        SELECT EXISTS (SELECT 1 FROM head), (SELECT lane_is_running FROM head), claimed.*
        FROM (SELECT 1) AS one LEFT JOIN claimed ON true"""  # noqa: S608
    return _Form(prepared, sql, [*head.params, *params, str(JobStatus.NEW)])


@kept
def _batch_form(
    kind: Any, model: Any, using: str, _identity: str, _variant: object, limit: int
) -> _Form:
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
    sql = f"""WITH due AS ({due.sql}), ready AS ({ready.sql} FOR UPDATE SKIP LOCKED), leased AS (
            UPDATE {table} SET {", ".join(claim)}, {attempt} = {attempt} + 1,
            {column} = CASE WHEN {key} = (SELECT {key} FROM ready LIMIT 1) THEN {begins} END
            WHERE {key} = ANY (ARRAY(SELECT {key} FROM ready)) AND COALESCE({status}, '') = %s
            AND NOT EXISTS (SELECT 1 FROM due)
            RETURNING {", ".join(map(quote, prepared.columns))}, {key}, {column} IS NOT NULL)
        SELECT EXISTS (SELECT 1 FROM due), leased.*
        FROM (SELECT 1) AS one LEFT JOIN leased ON true"""  # noqa: S608
    waiting = str(JobStatus.NEW)
    return _Form(prepared, sql, [*due.params, *ready.params, *params, *moment, waiting])


def _ask(form: _Form, using: str, params: list[Any]) -> list[Any]:
    with sessions.cursor(using) as cursor:
        cursor.execute(form.sql, params)
        return list(cursor.fetchall())


def _held(rows: Any, form: _Form, found: list[Any]) -> Iterator[Any]:
    """Yield the claimed jobs; one that can't be read waits a minute for another worker."""
    for values in found:
        try:
            row = form.prepared.object_of(values)
        except UnreadableRow as error:
            rows.put_back(error)
            continue
        row.hold()
        yield row
