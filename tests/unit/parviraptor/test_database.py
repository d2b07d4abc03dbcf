"""Which errors of a database mean that the same transaction may succeed when tried again."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import InterfaceError, OperationalError

from parviraptor_celery.database import alone, in_transaction, is_transient


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


def test_an_error_of_psycopg_itself_means_that_the_connection_is_gone() -> None:
    cause: Any = Exception("the connection is closed")
    cause.sqlstate = None
    error = OperationalError("the connection is closed")
    error.__cause__ = cause
    assert is_transient(error)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("run", [alone, in_transaction])
def test_what_starts_again_can_be_told_that_it_does(run: Any) -> None:
    tries: list[str] = []

    def first() -> str:
        tries.append("first")
        raise OperationalError("database is locked")

    def second() -> str:
        tries.append("again")
        if len(tries) < 3:
            raise OperationalError("database is locked")
        return "done"

    assert run("default", first, again=second) == "done"
    assert tries == ["first", "again", "again"]
