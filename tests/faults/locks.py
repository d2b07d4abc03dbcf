"""Which database sessions wait for a lock, as the server itself knows it at this moment.

Nothing here guesses by time: a session that is said to wait does so until somebody else moves.
"""

from __future__ import annotations

import re
from typing import Any

from django.db import connections

_BLOCKED_BY = "SELECT pid, pg_blocking_pids(pid) FROM unnest(%s::int[]) AS pid"

_WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)

_SECTION = "\nTRANSACTIONS\n"
_TRANSACTION = "---TRANSACTION "
_WAITS = "LOCK WAIT"
_SESSION = re.compile(r"(?:MySQL|MariaDB) thread id (\d+),")


def session_of(connection: Any) -> int | None:
    """Return the server's number of the session of a Django connection; None if it has none."""
    inner = connection.connection
    if inner is None:
        return None
    return int(inner.info.backend_pid if connection.vendor == "postgresql" else inner.thread_id())


def all_wait(sessions: set[int], using: str) -> bool:
    """Return whether each of ``sessions`` waits for a lock that only another session can free.

    False also of sessions that wait in a circle, which is for the server to break.
    """
    if connections[using].vendor == "postgresql":
        return _wait_on_postgresql(sessions, using)
    return sessions <= _waiting_on_mysql(using)


def somebody_waits(using: str) -> bool:
    """Return whether any session of this database waits for a lock."""
    connection = connections[using]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_WAITING)
            return bool(cursor.fetchone()[0])
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = database()")
        ours = {session for (session,) in cursor.fetchall()}
    return bool(ours & _waiting_on_mysql(using))


def _wait_on_postgresql(sessions: set[int], using: str) -> bool:
    with connections[using].cursor() as cursor:
        cursor.execute(_BLOCKED_BY, [list(sessions)])
        blockers: dict[int, set[int]] = {pid: set(pids) for pid, pids in cursor.fetchall()}
    freed: set[int] = set()
    while new := {pid for pid, pids in blockers.items() if pids - (sessions - freed)} - freed:
        freed |= new
    return freed == sessions


def _waiting_on_mysql(using: str) -> set[int]:
    # information_schema.innodb_trx repeats itself for 0.1 s from the last time it was asked;
    # this is said anew each time. InnoDB breaks a circle as soon as it comes about.
    with connections[using].cursor() as cursor:
        cursor.execute("SHOW ENGINE INNODB STATUS")
        text = cursor.fetchone()[2]
    found = text[text.index(_SECTION) :].split(_TRANSACTION)[1:]
    waiting = (_SESSION.search(about) for about in found if _WAITS in about)
    return {int(session.group(1)) for session in waiting if session}
