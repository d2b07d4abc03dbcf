"""Cursors for the few statements that are run around every row. Both apps use this module.

PostgreSQL takes longer to plan the most frequent of them than to run them. A prepared statement
is planned once in a session, but Django leaves psycopg's off, for the sake of poolers that give
each transaction another session. So they are used here for our own statements alone, and only
where the session can be seen to be the server's own.
"""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

from django.db import connections

from .conf import settings

logger = logging.getLogger("parviraptor_celery")

PLAIN_STATEMENTS = 10
"""So many are run in a session before it is asked whose it is: a short task pays nothing."""

REPETITIONS = 5
"""So often a statement is run before it is prepared, as psycopg does by default."""


OF_ANOTHER_SESSION = ("26000", "42P05")
"""There is no prepared statement of that name, or there is one already."""

STALE_RESULT = "RevalidateCachedQuery"
"""The function of the server that finds that a prepared statement gives other columns than
before, because of a migration. Its message is translated, and its code that of much else."""


def cursor(using: str) -> Any:
    """Return what ``with`` makes a cursor of Django's, for a statement that is run again and again.

    Its statements are prepared unless ``PREPARE_STATEMENTS`` is off, the project's ``OPTIONS``
    say anything of cursors or preparing themselves, or a pooler stands before the server. What
    they return has to be fetched inside of the block: the next one gets the same cursor.
    """
    connection = connections[using]
    if connection.vendor != "postgresql" or connection.queries_logged:
        return connection.cursor()  # of what is prepared, the log would not have the SQL
    connection.close_if_health_check_failed()
    session = _known(connection.connection)
    if session is None or not session.prepares_on(connection):
        return connection.cursor()
    return session.kept_cursor(connection)


def is_of_a_plan(error: Exception) -> bool:
    """Return whether a prepared statement can't be used any more; prepared anew it could be."""
    cause = error.__cause__
    diagnosis = getattr(cause, "diag", None)
    return (
        getattr(cause, "sqlstate", None) in OF_ANOTHER_SESSION
        or getattr(diagnosis, "source_function", None) == STALE_RESULT
    )


def forget_plans(connection: Any, error: Exception) -> None:
    """Close a connection with all that was prepared in it.

    If the plan is that of another session, nothing is prepared any more in this process: there
    must be a pooler that went unnoticed.
    """
    connection.close()
    if getattr(error.__cause__, "sqlstate", None) in OF_ANOTHER_SESSION:
        logger.warning(
            "database %s: a pooler seems to change the session between statements; "
            "nothing is prepared from now on. PREPARE_STATEMENTS = False says so beforehand",
            connection.alias,
        )
        _pooled.add(connection.alias)


class _Session:
    """What is known about one connection to a server, and the cursor that is kept for it."""

    def __init__(self) -> None:
        self.plain_left = PLAIN_STATEMENTS
        self.prepares = False
        self._kept: _KeptCursor | None = None

    def prepares_on(self, connection: Any) -> bool:
        if self.plain_left:
            self.plain_left -= 1
            if not self.plain_left and _may_prepare(connection):
                connection.connection.prepare_threshold = REPETITIONS
                self.prepares = True
        return self.prepares

    def kept_cursor(self, connection: Any) -> _KeptCursor:
        """Return the one cursor: a new one would have to learn all types of a statement anew."""
        kept = self._kept
        if kept is None or kept.cursor.closed or kept.timezone is not connection.timezone:
            kept = self._kept = _KeptCursor(_binding_cursor(connection), connection.timezone)
        return kept


class _KeptCursor:
    """A cursor that stays open behind the block."""

    def __init__(self, cursor: Any, timezone: Any) -> None:
        self.cursor, self.timezone = cursor, timezone

    def __enter__(self) -> Any:
        return self.cursor

    def __exit__(self, *_: object) -> None:
        pass


_pooled: set[str] = set()
_sessions: WeakKeyDictionary[Any, _Session] = WeakKeyDictionary()


def _known(connection: Any) -> _Session | None:
    if connection is None:
        return None
    session = _sessions.get(connection)
    if session is None:
        session = _sessions[connection] = _Session()
    return session


def _may_prepare(connection: Any) -> bool:
    from django.db.backends.postgresql.base import Cursor
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    session = connection.connection
    is_left_to_us = (
        is_psycopg3 and session.prepare_threshold is None and session.cursor_factory is Cursor
    )
    if not (is_left_to_us and settings.PREPARE_STATEMENTS) or connection.alias in _pooled:
        return False
    return _is_the_servers_own(connection)


def _is_the_servers_own(connection: Any) -> bool:
    """Return whether the process that answers is the one that the connection was opened to.

    A pooler makes up the process id that it gives to its clients.
    """
    session = connection.connection
    with connection.wrap_database_errors:
        (answering,) = session.execute("SELECT pg_backend_pid()").fetchone()
    return bool(answering == session.info.backend_pid)


def _binding_cursor(connection: Any) -> Any:
    """Return a cursor that leaves the parameters out of the SQL, for the server to bind."""
    from django.db.backends.postgresql.base import ServerBindingCursor

    session = connection.connection
    plain, session.cursor_factory = session.cursor_factory, ServerBindingCursor
    try:
        return connection.cursor()
    finally:
        session.cursor_factory = plain
