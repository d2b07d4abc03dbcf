"""How a feed settles a run when nothing is claimed together with it. Both apps use this module."""

from __future__ import annotations

from typing import Any

from django.db import OperationalError

from .database import REFUSALS, alone, is_transient


def settle_alone(run: Any, using: str) -> None:
    """Settle a run by itself; what the database refuses to store becomes a failure."""
    try:
        alone(using, run.settle, again=run.settle_again)
    except REFUSALS as error:
        run.refuse(error)
        alone(using, run.settle)
    except OperationalError as error:
        # Of SQLite and MariaDB also what others call a wrong statement.
        if is_transient(error):
            raise
        run.refuse(error)
        alone(using, run.settle)
