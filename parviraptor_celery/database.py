"""Transactions that start again when the database asked for that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import (
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    connections,
    transaction,
)

from . import sessions

logger = logging.getLogger("parviraptor_celery")

T = TypeVar("T")

ATTEMPTS = 5
RETRIED_SQLSTATES = ("40001", "40P01", "57P01", "57P02", "57P03")
"""Serialization failure, deadlock, and a server that shuts down or starts."""

TRANSIENT_WORDS = ("database is locked", "table is locked")
"""Of SQLite, which has no codes."""

RETRIED_MYSQL_CODES = (1205, 1213)
LOST_MYSQL_CODES = (1053, 1927, 3169, 2006, 2013, 2055, 4031)
"""The first three are said by a server that shuts down, or was told to end the session."""

OUT_OF_RANGE_MYSQL_CODES = (1264, 1690)

REFUSALS = (
    *(DataError, IntegrityError, ProgrammingError, NotSupportedError),
    *(ValidationError, ValueError, TypeError, OverflowError),
)
"""What a value raises that can't be stored."""


def in_transaction(using: str, body: Callable[[], T], *, again: Callable[[], T] | None = None) -> T:
    """Run ``body`` in a transaction of ``using`` and return its result.

    A deadlock, a serialization failure or a lost connection makes it start again, up to
    ``ATTEMPTS`` times; so ``body`` must be safe to repeat, which a fenced UPDATE is. Inside a
    transaction of the caller nothing is repeated: only the outermost block could be.

    If the connection broke at the COMMIT, nobody knows whether that went through. Whoever has to
    know passes ``again``, which runs instead of ``body`` from the second try on, and finds out.
    """

    def transact(run: Callable[[], T]) -> T:
        with transaction.atomic(using=using):
            return run()

    return _repeated(using, lambda: transact(body), lambda: transact(again or body))


def alone(using: str, statement: Callable[[], T], *, again: Callable[[], T] | None = None) -> T:
    """Run one statement and return its result, starting again like ``in_transaction``.

    A single statement is a transaction by itself; without BEGIN and COMMIT around it, it takes
    two round trips less, and holds its locks for no longer than the database needs.
    """
    if connections[using].in_atomic_block:
        return in_transaction(using, statement, again=again)
    return _repeated(using, statement, again or statement)


def is_transient(error: Exception) -> bool:
    """Return whether the same transaction may succeed when it is tried again."""
    if isinstance(error, InterfaceError):
        return True  # the connection is gone
    if not isinstance(error, OperationalError):
        return sessions.is_of_a_plan(error)
    cause: Any = error.__cause__
    if hasattr(cause, "sqlstate"):
        # PostgreSQL gives a code with each error; without one it is psycopg that has lost it.
        sqlstate = str(cause.sqlstate or "08")
        return sqlstate in RETRIED_SQLSTATES or sqlstate[:2] == "08"
    code = error.args[0] if error.args else None
    if code in RETRIED_MYSQL_CODES or code in LOST_MYSQL_CODES:
        return True
    return any(words in str(error) for words in TRANSIENT_WORDS)


def tells_no_value(error: Exception) -> bool:
    """Return whether the message of ``error`` is about the server or its tables.

    Of others PostgreSQL tells the whole row that it refused, and a field the value it can't read:
    those messages must not be logged.
    """
    return isinstance(error, OperationalError | InterfaceError | ProgrammingError)


def is_refusal(error: Exception) -> bool:
    """Return whether ``error`` is about a value, which no other row need have."""
    if isinstance(error, OperationalError):
        return bool(error.args) and error.args[0] in OUT_OF_RANGE_MYSQL_CODES
    return isinstance(error, REFUSALS) and not sessions.is_of_a_plan(error)


def _repeated(using: str, body: Callable[[], T], again: Callable[[], T]) -> T:
    connection = connections[using]
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return body() if attempt == 1 else again()
        except Error as error:
            if connection.in_atomic_block or attempt == ATTEMPTS or not is_transient(error):
                raise
            logger.info("transaction on %s starts again (%s)", using, type(error).__name__)
            if sessions.is_of_a_plan(error):
                connection.close()  # with all that was prepared
            else:
                connection.close_if_unusable_or_obsolete()
    raise AssertionError("unreachable")
