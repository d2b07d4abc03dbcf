"""Claims within a larger statement, which PostgreSQL can: an UPDATE may stand in a WITH.

Other engines take the steps one by one. What may be claimed is asked by the same query as
everywhere, ``LeasedQuerySet.as_candidates()``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from django.db import connections

from . import sessions
from .clock import kept, now
from .leased import ANY_LANE
from .leases import worker_identity
from .prepared import PreparedSelect
from .statements import equations
from .states import JobStatus


def is_possible(using: str) -> bool:
    """Return whether the engine of ``using`` takes an UPDATE inside a WITH."""
    return connections[using].vendor == "postgresql"


@dataclass(frozen=True)
class Claim:
    """A part of a statement that claims, which is the same for every job of a queue.

    Its parameters are written out, but for the lane, which is called ``lane``.
    """

    prepared: PreparedSelect
    sql: str

    @functools.cached_property
    def alone(self) -> str:
        """The claim as a statement by itself."""
        return f"WITH {self.sql}"


def about(rows: Any) -> tuple[Any, ...]:
    """Return what the SQL of a claim depends on: leases and pauses are part of it."""
    variant = rows.model.lease_seconds(), rows.variant()
    return rows.__class__, rows.model, rows.db, worker_identity(), variant


def of_head(rows: Any, *more: str, provided: str, select: str) -> Claim:
    """Return the end of a WITH, which claims the head of a lane, and what is selected of it all.

    The head is there as ``head``, with ``more`` of what ``as_candidates()`` annotates, and as
    ``claimed`` if it may run and ``provided`` holds. Behind ``select`` follow whether it was
    claimed, and its columns.
    """
    return _of_head(*about(rows), more, provided, select)


@kept
def _of_head(
    kind: Any,
    model: Any,
    using: str,
    _identity: str,
    _variant: object,
    more: tuple[str, ...],
    provided: str,
    select: str,
) -> Claim:
    rows, connection = kind(model, using=using), connections[using]
    prepared = rows.prepared_candidate(JobStatus.NEW)
    head = rows.prepared_head(JobStatus.NEW, *more)
    quote = connection.ops.quote_name
    table, key, attempt, status = map(quote, (model._meta.db_table, "id", "attempt", "status"))
    begun = {"status": model.LEASED, "running_lane": ANY_LANE, model.STAMP: now()}
    claim, params = equations(model, connection, begun | model.lease_columns() | model.BEGUN)
    # Subselects rather than a join, and a status that fits no partial index, leave the planner
    # no choice but the primary key, however little it knows about the table.
    sql = f"""head AS ({head.sql}), claimed AS (
            UPDATE {table} SET {", ".join(claim)}, {attempt} = {attempt} + 1
            WHERE {key} = (SELECT {key} FROM head
                           WHERE is_due AND held_by IS NULL AND NOT is_paused)
            AND {attempt} = (SELECT {attempt} FROM head)
            AND COALESCE({status}, '') = %s AND {provided}
            RETURNING {", ".join(map(quote, prepared.columns))})
        SELECT {select}, claimed.{key} IS NOT NULL, claimed.*
        FROM (SELECT 1) AS one LEFT JOIN claimed ON true"""  # noqa: S608
    params = [*head.params, *params, str(JobStatus.NEW)]
    return Claim(prepared, written_out(connection, sql, params))


def written_out(connection: Any, sql: str, params: list[Any]) -> str:
    """Return ``sql`` with every parameter in it but the lane, which gets a name."""
    written: str = connection.ops.compose_sql(sql, params)
    return written.replace("%", "%%").replace(f"'{ANY_LANE}'", "%(lane)s")


def ask(using: str, sql: str, params: Any) -> list[Any]:
    """Run a statement that claims, and return what it selects."""
    with sessions.cursor(using) as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())
