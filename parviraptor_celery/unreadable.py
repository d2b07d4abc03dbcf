"""Rows that this process can't turn into objects: a field refuses what the database holds.

During a rolling deploy an old worker may meet the member of an enum that it doesn't know yet; or
somebody wrote a value past the model. Such a row waits for a worker that can read it, and keeps
nobody else from running.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from .clock import from_now
from .texts import describe

logger = logging.getLogger("parviraptor_celery")

PAUSE = timedelta(minutes=1)
UNREADABLE = "could not be read by a worker: {}"


class UnreadableRow(Exception):
    """A row of ``model`` can't be made an object; ``values`` has what the database gave."""

    def __init__(self, model: Any, values: dict[str, Any], cause: Exception) -> None:
        super().__init__(f"{model._meta.label} {values.get('id')}")
        self.model, self.values, self.cause = model, values, cause


def postponed(error: UnreadableRow) -> dict[str, Any]:
    """Return the columns of an unreadable row that waits for another worker; say so in the log.

    The message of the cause may hold the value itself, so it goes to the row only.
    """
    logger.error(
        "%s %s can't be read here (%s) and waits a minute",
        error.model._meta.label,
        error.values["id"],
        type(error.cause).__name__,
    )
    message = UNREADABLE.format(describe(error.cause, with_type=True))
    return {"run_after": from_now(PAUSE), "error_message": message}
