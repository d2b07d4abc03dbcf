"""The database's clock, the same on every engine."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

from django.db.models import DateTimeField, ExpressionWrapper, Value
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now


class DatabaseNow(Now):
    """The statement's time in UTC.

    Django's own ``Now()`` is CURRENT_TIMESTAMP on MySQL and MariaDB, which answers in the
    session's time zone, while Django stores UTC there: on a server that doesn't run in UTC
    every lease would be off by hours.
    """

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)


def now() -> DatabaseNow:
    """Return an expression for the time at which the database runs the statement."""
    return DatabaseNow()


class Moment(ExpressionWrapper):
    """The statement's time plus a delay."""

    def __init__(self, delay: timedelta) -> None:
        moment: CombinedExpression = DatabaseNow() + Value(delay)
        super().__init__(moment, output_field=DateTimeField())
        self.delay = delay


@functools.lru_cache(maxsize=100)
def from_now(delay: timedelta | float) -> Moment:
    """Return an expression for the database's time plus ``delay`` (seconds or timedelta)."""
    return Moment(delay if isinstance(delay, timedelta) else timedelta(seconds=delay))
