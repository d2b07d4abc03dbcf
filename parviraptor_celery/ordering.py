"""Strict order, for queues that ask for it: ids of a lane are committed in their order.

Ids are given out at INSERT, rows become visible at COMMIT, so of two transactions the later one
may commit first, and its job run first. Under ``STRICT_ORDER`` a transaction takes a lock on
the lane before it inserts, and keeps it until its end: the next one has to wait for that.

- PostgreSQL: an advisory lock of the transaction.
- MySQL, MariaDB: the lock on a row of the table of ticks.
- SQLite: there is one writer at a time, who holds off the others from the start.

A lock belongs to the hash of a lane: a queue has ``LOCKS`` of them, however many lanes, since
PostgreSQL keeps all advisory locks in a table of fixed size.
"""

from __future__ import annotations

import zlib
from typing import Any

from django.apps import apps
from django.db import connections

LOCKS = 256

_LOCK_ROW = """
INSERT INTO {table} (name, `cursor`) VALUES (%s, '') ON DUPLICATE KEY UPDATE name = name
"""


def hold(queue: Any, using: str, lanes: list[str]) -> None:
    """Wait for the transactions that write to ``lanes``; hold off those that follow.

    Call it in the transaction that inserts them, each time: a savepoint that is rolled back
    gives its locks back. The locks of one call are taken in one order, so two calls can't wait
    for each other; two transactions with several calls each can, and one fails as a deadlock.
    """
    vendor = connections[using].vendor
    if vendor not in ("postgresql", "mysql"):
        return
    locks = sorted({int(lane[:8], 16) % LOCKS for lane in lanes})
    with connections[using].cursor() as cursor:
        if vendor == "postgresql":
            number = _number_of(queue)
            for lock in locks:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [number, lock])
        else:
            _lock_rows(
                cursor, [f"order:{queue._meta.label_lower[:130]}:{lock:03d}" for lock in locks]
            )


def _number_of(queue: Any) -> int:
    """Return the table of ``queue`` as a signed 32-bit number, the same in every process."""
    return zlib.crc32(queue._meta.db_table.encode()) - 2**31


def _lock_rows(cursor: Any, names: list[str]) -> None:
    table = apps.get_model("parviraptor_celery", "Tick")._meta.db_table
    # A duplicate of this form is locked exclusively at once, where INSERT IGNORE shares it first.
    statement = _LOCK_ROW.format(table=cursor.db.ops.quote_name(table))
    for name in names:
        cursor.execute(statement, [name])
