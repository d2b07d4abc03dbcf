"""What somebody else's code left open on the connections of this thread. Both apps use this module.

Bodies and functions may begin transactions by ``atomic()``, ``set_autocommit(False)``, or a
statement of their own. What is written after one that was left open would never be committed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from django.db import Error, connections

_OPEN_POSTGRESQL_STATES = (1, 2, 3)
"""Of libpq: a statement runs, a transaction is open, or open and failed."""

_BEGIN_OR_END = re.compile(
    r"\s*(?:(BEGIN|START\s+TRANSACTION)|COMMIT|ROLLBACK(?!\s+(?:WORK\s+)?TO))\b", re.IGNORECASE
)


def open_transactions() -> dict[str, int]:
    """Return for each connection of this thread how many transactions and savepoints are open.

    It costs no query. The client of MySQL and MariaDB doesn't tell of a transaction that a
    statement began, so from now on the statements of such a connection are looked at.
    """
    initialized: Sequence[Any] = connections.all(initialized_only=True)
    for connection in initialized:
        if connection.vendor == "mysql" and _note not in connection.execute_wrappers:
            # In front: who leaves a block of execute_wrapper() takes the last one away.
            connection.execute_wrappers.insert(0, _note)
    return {connection.alias: _depth(connection) for connection in initialized}


def undo_left_open(before: dict[str, int]) -> bool:
    """Roll back what was opened since ``before`` and left so; return whether that was anything.

    Autocommit that was left off, though all was committed, is only switched on again.
    """
    left = [
        connection
        for connection in connections.all(initialized_only=True)
        if _depth(connection) > before.get(connection.alias, 0)
    ]
    was_open = [_undo(connection, before.get(connection.alias, 0)) for connection in left]
    return any(was_open)


def _depth(connection: Any) -> int:
    if connection.in_atomic_block:
        return len(connection.savepoint_ids) + 1
    if connection.connection is None or not connection.settings_dict["AUTOCOMMIT"]:
        return 0  # one that is to be in a transaction always is the project's own business
    return int(not connection.autocommit or _is_in_transaction(connection))


def _undo(connection: Any, depth_before: int) -> bool:
    if connection.in_atomic_block:
        if not depth_before:
            connection.in_atomic_block = False  # so that it closes; opened anew, it is in none
            connection.close()
        return True
    try:
        was_open = _is_open_after_all(connection)
        connection.rollback()
        connection.set_autocommit(True)
    except Error:
        connection.close()
        return True
    connection._begun_in = None
    return was_open


def _is_in_transaction(connection: Any) -> bool:
    """Return what can be told by a look at attributes."""
    session = connection.connection
    match connection.vendor:
        case "postgresql":
            # The first is of psycopg 3, and ten times as fast as what both versions have.
            states = getattr(session, "pgconn", None) or session.info
            return states.transaction_status in _OPEN_POSTGRESQL_STATES
        case "mysql":
            begun_in = getattr(connection, "_begun_in", None)
            return begun_in is session or not session.get_autocommit()
    return bool(getattr(session, "in_transaction", False))


def _is_open_after_all(connection: Any) -> bool:
    """Return whether there is anything to roll back; MariaDB is asked, and MySQL can't be."""
    if connection.vendor != "mysql" or not connection.mysql_is_mariadb:
        return _is_in_transaction(connection)
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@in_transaction")
        return bool(cursor.fetchone()[0])


def _note(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    """Run a statement, and note on its connection whether it has begun or ended a transaction."""
    result = execute(sql, params, many, context)
    if isinstance(sql, str) and (found := _BEGIN_OR_END.match(sql)):
        connection = context["connection"]
        connection._begun_in = connection.connection if found[1] else None
    return result
