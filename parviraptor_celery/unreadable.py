"""Rows that this process can't claim, for what the database holds.

A field can't make a value of it: during a rolling deploy an old worker may meet the member of an
enum that it doesn't know yet. Or the claim can't be written: somebody changed the row past the
model, and its attempt can't be counted on. Such a row waits a minute, for a worker that can claim
it, and keeps nobody else from running.

A lane knows which row that is: its next one. Of a batch it isn't known, so its rows are then
claimed one by one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import DataError, Error

from .clock import from_now
from .database import is_refusal
from .texts import describe

logger = logging.getLogger("parviraptor_celery")

PAUSE = timedelta(minutes=1)
IDENTITY = ("id", "status", "attempt")
"""Columns by which a row is postponed: no other is read for it."""

Values = dict[str, Any]


class UnclaimableRow(Exception):
    """A row of ``model`` can't be claimed here.

    ``values`` has what the database gave, its identity at least; nothing where it is not known
    which row of a batch it is.
    """

    verb = "claimed"

    def __init__(self, model: Any, values: Values, cause: Exception) -> None:
        super().__init__(f"{model._meta.label} {values.get('id')}")
        self.model, self.values, self.cause = model, values, cause


class UnreadableRow(UnclaimableRow):
    """It can't even be made an object."""

    verb = "read"


@contextmanager
def reading(model: Any) -> Iterator[None]:
    """Raise UnreadableRow for what a field raises, whatever that is, or the driver about a value.

    What is wrong with the statement or the server is about no row.
    """
    try:
        yield
    except UnclaimableRow:
        raise
    except Exception as error:
        if isinstance(error, Error) and not isinstance(error, DataError):
            raise
        raise UnreadableRow(model, {}, error) from error


@contextmanager
def claiming(model: Any, row: Any = None) -> Iterator[None]:
    """Raise UnclaimableRow where the database refuses what a claim of ``row`` would write."""
    values = {} if row is None else {"id": row.pk, "status": row.status, "attempt": row.attempt}
    try:
        yield
    except Exception as error:
        if not is_refusal(error):
            raise
        raise UnclaimableRow(model, values, error) from error


def postponed(error: UnclaimableRow) -> dict[str, Any]:
    """Return the columns of a row that waits for another worker; say so in the log.

    The message of the cause may hold the value itself, so it goes to the row only.
    """
    logger.error(
        "%s %s can't be %s here (%s) and waits a minute",
        error.model._meta.label,
        error.values["id"],
        error.verb,
        type(error.cause).__name__,
    )
    message = f"could not be {error.verb} by a worker: {describe(error.cause, with_type=True)}"
    return {"run_after": from_now(PAUSE), "error_message": message}
