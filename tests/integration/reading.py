"""What a database reads to answer: counted by itself, not timed. And tables full of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import Model

STEPS = 100
"""Instructions of SQLite's machine that count as one read; a row of a scan takes about ten."""


@dataclass
class Reads:
    """How much was read: rows, and entries of indexes."""

    count: int = 0
    whole_tables: int = 0
    """How often a table was read from its beginning (PostgreSQL), or rows of it (MariaDB)."""


@contextmanager
def reads(using: str, *models: Any) -> Iterator[Reads]:
    """Count what the connection reads of the tables of ``models`` while the block runs.

    Rows and entries of indexes on MariaDB (of all tables). On PostgreSQL the pages of both,
    besides: entries of an index that are passed over show there only. On SQLite it is hundreds
    of instructions, whatever they are about.
    """
    found, vendor = Reads(), connections[using].vendor
    counting = {"sqlite": _sqlite, "mysql": _mariadb, "postgresql": _postgresql}[vendor]
    with counting(using, found, [model._meta.db_table for model in models]):
        yield found


@contextmanager
def _sqlite(using: str, found: Reads, tables: list[str]) -> Iterator[None]:
    def count() -> int:
        found.count += 1
        return 0

    connections[using].ensure_connection()
    connection: Any = connections[using].connection
    connection.set_progress_handler(count, STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


@contextmanager
def _mariadb(using: str, found: Reads, tables: list[str]) -> Iterator[None]:
    before = _handlers(using)
    yield
    after = _handlers(using)
    read = {name: after[name] - before[name] for name in after}
    found.count = sum(read.values())
    found.whole_tables = read["Handler_read_rnd_next"]


def _handlers(using: str) -> dict[str, int]:
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SHOW SESSION STATUS WHERE Variable_name LIKE 'Handler_read%' "
            "AND Variable_name NOT LIKE '%deleted'"
        )
        return {name: int(count) for name, count in cursor.fetchall()}


@contextmanager
def _postgresql(using: str, found: Reads, tables: list[str]) -> Iterator[None]:
    before = _statistics(using, tables)
    yield
    after = _statistics(using, tables)
    found.count = after[0] - before[0]
    found.whole_tables = after[1] - before[1]


def _statistics(using: str, tables: list[str]) -> tuple[int, int]:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT 1")  # at the end of a statement is when the counts are told
        cursor.execute(_STATISTICS, [tables, tables])
        count, whole = cursor.fetchone()
    return int(count), int(whole)


_STATISTICS = """
SELECT sum(seq_tup_read + heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit, 0)
           + coalesce(idx_blks_read, 0))
       + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = ANY(%s)),
       sum(seq_scan)
FROM pg_stat_user_tables JOIN pg_statio_user_tables USING (relid, relname)
WHERE relname = ANY(%s)
"""


def multiply(row: Model, copies: int, **columns: str) -> None:
    """Insert so many copies of ``row`` in one statement; ``columns`` are SQL over the number n.

    ``n`` counts from 0.
    """
    using = row._state.db or "default"
    connection, names = connections[using], []
    values = []
    for field in row._meta.concrete_fields:
        if not field.primary_key:
            names.append(connection.ops.quote_name(field.column))
            values.append(columns.get(field.column, f"one.{field.column}"))
    digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
    width = len(str(max(copies - 1, 1)))
    tens = [f"({digits}) AS t{place}" for place in range(width)]
    number = " + ".join(f"t{place}.d * {10**place}" for place in range(width))
    table = connection.ops.quote_name(row._meta.db_table)
    sql = (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
        f"FROM (SELECT * FROM {table} WHERE id = {row.pk}) AS one "
        f"CROSS JOIN (SELECT n FROM (SELECT {number} AS n FROM {', '.join(tens)}) AS every "
        f"WHERE n < {copies}) AS numbers ORDER BY n"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql)


def lane_of_number(using: str) -> str:
    """Return SQL for a lane of its own for each ``n``: 32 hexadecimal digits."""
    return {
        "sqlite": "printf('%032x', n)",
        "postgresql": "lpad(to_hex(n), 32, '0')",
        "mysql": "lower(lpad(hex(n), 32, '0'))",
    }[connections[using].vendor]


def far_away(using: str) -> str:
    """Return SQL for a moment that no test lives to see."""
    at = "'2999-01-01 00:00:00'"
    return f"{at}::timestamptz" if connections[using].vendor == "postgresql" else at


def learn(using: str, *models: Any) -> None:
    """Let the database look how the tables are filled, for its plans."""
    for model in models:
        table = connections[using].ops.quote_name(model._meta.db_table)
        words = {"mysql": "ANALYZE TABLE"}.get(connections[using].vendor, "ANALYZE")
        with connections[using].cursor() as cursor:
            cursor.execute(f"{words} {table}")
            if connections[using].vendor == "mysql":
                cursor.fetchall()
