"""The database's clock, the same on every engine.

Everything here asks the time through this module, so that ``virtual_clock`` can move it in tests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db.models import DateTimeField, ExpressionWrapper, Value
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now
from django.utils import timezone

T = TypeVar("T")

_NOT_MOVED = timedelta()
_offset = _NOT_MOVED
_kept: list[Callable[[], None]] = []


class DatabaseNow(Now):
    """The statement's time in UTC.

    Django's own ``Now()`` is CURRENT_TIMESTAMP on MySQL and MariaDB, which answers in the
    session's time zone, while Django stores UTC there: on a server that doesn't run in UTC
    every lease would be off by hours.
    """

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        if _offset == _NOT_MOVED:
            return super().as_postgresql(compiler, connection, **extra)
        moved = f"(STATEMENT_TIMESTAMP() + INTERVAL '{_offset.total_seconds():.6f} seconds')"
        return self.as_sql(compiler, connection, template=moved, **extra)

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "UTC_TIMESTAMP(6)"
        if _offset != _NOT_MOVED:
            template = f"({template} + INTERVAL {_offset // timedelta(microseconds=1)} MICROSECOND)"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        sql, params = super().as_sqlite(compiler, connection, **extra)
        if _offset != _NOT_MOVED:
            sql = sql.replace("'NOW'", f"'NOW', '{_offset.total_seconds():+.6f} seconds'")
        return sql, params


@functools.cache
def now() -> DatabaseNow:
    """Return an expression for the time at which the database runs the statement."""
    return DatabaseNow()


def local_now() -> datetime:
    """Return the time of this process, aware: for what is no part of a statement."""
    return timezone.now() + _offset


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


def kept(compose: Callable[..., T]) -> Callable[..., T]:
    """Keep what ``compose`` returns for its arguments: SQL in which the time may occur.

    While a test has moved the clock, it is composed anew each time.
    """
    keeping = functools.lru_cache(maxsize=1000)(compose)
    _kept.append(keeping.cache_clear)

    @functools.wraps(compose)
    def composed(*arguments: Any) -> T:
        return keeping(*arguments) if _offset == _NOT_MOVED else compose(*arguments)

    return composed


def move(offset: timedelta) -> None:
    """Let the time be ``offset`` later than it is; zero puts it right. For ``virtual_clock``."""
    global _offset
    _offset = offset
    if offset == _NOT_MOVED:
        # Another thread may have been composing just when the clock was moved.
        for forget in _kept:
            forget()
