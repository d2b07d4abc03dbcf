"""Which errors of a database mean that the same transaction may succeed when tried again."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import InterfaceError, OperationalError

from parviraptor_celery.database import is_transient


def of_postgresql(sqlstate: str) -> OperationalError:
    cause: Any = Exception()
    cause.sqlstate = sqlstate
    error = OperationalError("told by its code")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        of_postgresql("40P01"),
        of_postgresql("40001"),
        of_postgresql("57P01"),
        of_postgresql("08006"),
        OperationalError(1213, "Deadlock found"),
        OperationalError(2013, "Lost connection"),
        OperationalError("database is locked"),
        OperationalError("database table is locked: shop"),
        InterfaceError("connection already closed"),
    ],
)
def test_may_pass(error: Any) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        of_postgresql("57014"),  # a statement that took too long would do so again
        OperationalError(3118, "Access denied for user. Account is locked."),
        OperationalError(1099, "Table 'x' was locked with a READ lock and can't be updated"),
        OperationalError("near nothing: syntax error"),
    ],
)
def test_stays(error: Any) -> None:
    assert not is_transient(error)
