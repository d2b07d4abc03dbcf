"""The order of commits: a lower id may commit later, and must not be overtaken.

Ids are given out at INSERT, rows become visible at COMMIT. A relay that takes what it sees in
the order of ids inverts about half of the events of concurrent writers. What each engine
offers against that:

- PostgreSQL: writers hold a shared advisory lock on their lane until they commit or roll back.
  The relay notes the highest id it sees, then the holders; once these are gone, nothing below
  that id can appear any more. Writers never wait. A relay that runs inside a transaction which
  wrote to the lane itself, as in a test, sees its own rows and doesn't wait for itself.
- MySQL, MariaDB: a locking read of the head meets the row of an uncommitted writer.
- SQLite: there is one writer at a time, so ids commit in order.
"""

from __future__ import annotations

import time
from typing import Any

from django.db import DatabaseError, connections, transaction

from .models import Event

PATIENCE_SECONDS = 0.5
POLL_SECONDS = 0.01
LOOKAHEAD = 100
"""Rows of a lane that one look at the barrier covers."""

_HOLDERS = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid::bigint = %s AND objid::bigint = %s AND pid <> pg_backend_pid()
"""


def enter(lane: str, using: str) -> None:
    """Let the relay know that this transaction writes to ``lane``; call before the INSERT.

    The lock goes with the transaction, or with the savepoint that is rolled back, so every
    write takes it anew.
    """
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [_lock_number(lane)])


class Barrier:
    """Tells how far a lane may be read: no event up to ``passed`` can be overtaken."""

    def __init__(self, rows: Any, lane: str) -> None:
        self.rows, self.lane = rows, lane
        self.connection = connections[rows.db]
        self.passed = 0

    def admits(self, event: Event, patience: float) -> bool:
        """Return whether ``event``, the lane's first visible one, is its first one.

        Waits ``patience`` seconds at most for writers that are about to commit, with 0 not at
        all; False means that one is still at it, and that the lane should be left alone.
        """
        if event.pk <= self.passed:
            return True
        deadline = time.monotonic() + patience
        match self.connection.vendor:
            case "postgresql":
                return self._admits_by_holders(event, deadline)
            case "mysql":
                return self._admits_by_locking_read(event, deadline)
        return True

    def _admits_by_holders(self, event: Event, deadline: float) -> bool:
        visible = self._visible()
        awaited = self._holders()  # read after what is visible: later writers get higher ids
        while awaited:
            if time.monotonic() >= deadline:
                return False
            _wait()
            awaited &= self._holders()
        return self._note(visible, self._ids()[:1], event)

    def _admits_by_locking_read(self, event: Event, deadline: float) -> bool:
        visible = self._visible()
        # As many rows as are visible, and no condition on the id: MariaDB would walk the primary
        # key for that, and stumble over the writers of other lanes.
        same = self._ids().select_for_update(nowait=True)[: len(visible)]
        while True:
            try:
                with transaction.atomic(using=self.rows.db):
                    return self._note(visible, same.all(), event)
            except DatabaseError:  # an uncommitted writer holds one of them
                if time.monotonic() >= deadline:
                    return False
                _wait()

    def _visible(self) -> list[int]:
        return list(self._ids()[:LOOKAHEAD])

    def _ids(self) -> Any:
        return self.rows.waiting_in(self.lane).values_list("id", flat=True)

    def _note(self, visible: list[int], final: Any, event: Event) -> bool:
        """Look again: up to the last visible id, this is all there will ever be."""
        first = next(iter(final), None)
        self.passed = max([self.passed, *visible])
        return bool(first == event.pk)

    def _holders(self) -> set[str]:
        number = _lock_number(self.lane) % 2**64
        with self.connection.cursor() as cursor:
            cursor.execute(_HOLDERS, [number >> 32, number % 2**32])
            return {row[0] for row in cursor.fetchall()}


def _wait() -> None:
    time.sleep(POLL_SECONDS)


def _lock_number(lane: str) -> int:
    """Return the lane as a signed 64-bit number."""
    return int.from_bytes(bytes.fromhex(lane[:16]), signed=True)
