"""Cursors for the few statements that are run around every row. Both apps use this module.

PostgreSQL takes longer to plan the most frequent of them than to run them. A prepared statement
is planned once in a session, but Django leaves psycopg's off, for the sake of poolers that give
each transaction another session. So they are used here for our own statements alone, and only
where the session can be seen to be the server's own.
"""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakSet

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
    say anything of cursors or preparing themselves, a pooler stands before the server, or the
    backend makes cursors in a way of its own, to set a tenant's schema for one. What they return
    has to be fetched inside of the block: the next one gets the same cursor.
    """
    connection = connections[using]
    if connection.vendor != "postgresql" or connection.queries_logged:
        return connection.cursor()  # of what is prepared, the log would not have the SQL
    connection.close_if_health_check_failed()
    session = _session_of(connection)
    if session is None or not session.prepares(connection):
        return connection.cursor()
    connection.validate_thread_sharing()
    return _Kept(connection, session)


def is_of_a_plan(error: Exception) -> bool:
    """Return whether a prepared statement can't be used any more; prepared anew it could be."""
    diagnosis = getattr(error.__cause__, "diag", None)
    return (
        _sqlstate(error) in OF_ANOTHER_SESSION
        or getattr(diagnosis, "source_function", None) == STALE_RESULT
    )


class _Session:
    """What a connection of Django's knows about its session, and the cursor that it keeps for it.

    A new cursor would have to learn all types of a statement anew.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self.plain_left = PLAIN_STATEMENTS
        self.may_prepare = False
        self.timezone: Any = None
        self.kept: Any = None

    def prepares(self, connection: Any) -> bool:
        """Return whether the next statement is prepared; the first ones are not."""
        if self.plain_left:
            self.plain_left -= 1
            if not self.plain_left and _may_prepare(connection):
                self.session.prepare_threshold = REPETITIONS
                _prepared_by_us.add(self.session)
                self.may_prepare = True
        return self.may_prepare and not _is_looked_on(connection)

    def cursor(self, connection: Any) -> Any:
        """Return the cursor of psycopg that is kept."""
        if self.kept is None or self.kept.closed or self.timezone is not connection.timezone:
            self.kept, self.timezone = _binding_cursor(connection), connection.timezone
        return self.kept


class _Kept:
    """A block in which the kept cursor is one of Django's; it stays open behind it."""

    def __init__(self, connection: Any, session: _Session) -> None:
        self.connection, self.session = connection, session

    def __enter__(self) -> Any:
        return self.connection.make_cursor(self.session.cursor(self.connection))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None and _sqlstate(error) in OF_ANOTHER_SESSION:
            self.session.may_prepare = False
            _distrust(self.connection.alias)


_ATTRIBUTE = "_parviraptor_session"
_MAKERS = frozenset({"cursor", "_cursor", "create_cursor", "make_cursor", "_prepare_cursor"})
"""What makes a cursor of Django's. A tool that looks on replaces one of them on the object."""

_pooled: set[str] = set()
_prepared_by_us: WeakSet[Any] = WeakSet()
"""Sessions that a pool of Django's may give to another of its connections."""


def _session_of(connection: Any) -> _Session | None:
    session = connection.connection
    if session is None:
        return None
    known: _Session | None = vars(connection).get(_ATTRIBUTE)
    if known is None or known.session is not session:
        known = _Session(session)
        setattr(connection, _ATTRIBUTE, known)
    return known


def _is_looked_on(connection: Any) -> bool:
    """Return whether a method that makes cursors was replaced on this one object.

    Django's test cases do so too, and leave the method itself there when they are done.
    """
    own = vars(connection)
    return any(
        getattr(own[name], "__func__", None) is not getattr(type(connection), name)
        for name in _MAKERS
        if name in own
    )


def _distrust(alias: str) -> None:
    """Prepare nothing any more in this process: there must be a pooler that went unnoticed."""
    logger.warning(
        "database %s: a pooler seems to change the session between statements; nothing is prepared "
        "from now on. PREPARE_STATEMENTS = False says so beforehand",
        alias,
    )
    _pooled.add(alias)


def _sqlstate(error: BaseException) -> str | None:
    return getattr(error.__cause__, "sqlstate", None)


def _may_prepare(connection: Any) -> bool:
    from django.db.backends.postgresql.base import Cursor, DatabaseWrapper
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    session, kind = connection.connection, type(connection)
    if not is_psycopg3 or session.cursor_factory is not Cursor or connection.alias in _pooled:
        return False
    if session.prepare_threshold is not None and session not in _prepared_by_us:
        return False
    if any(getattr(kind, name) is not getattr(DatabaseWrapper, name) for name in _MAKERS):
        return False
    return settings.PREPARE_STATEMENTS and _is_the_servers_own(connection)


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
        return connection.create_cursor()
    finally:
        session.cursor_factory = plain
