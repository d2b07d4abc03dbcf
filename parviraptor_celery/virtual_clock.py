"""For tests: a clock that is set forward, so that nobody has to wait. Both apps use this module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from django.apps import apps
from django.db.models import Field
from django.utils import timezone

from . import clock

_APPS = ("jaiminho_celery", "parviraptor_celery")
_in_use: list[VirtualClock] = []


class VirtualClock:
    """What ``virtual_clock()`` yields."""

    def __init__(self) -> None:
        self.offset = timedelta()
        """How far the time is ahead of the real one."""

    def advance(self, delta: timedelta | None = None, **parts: float) -> datetime:
        """Set the time forward, by ``delta`` or as in ``advance(hours=1, minutes=5)``.

        Returns the new time.

        Raises:
            ValueError: backwards. A lease that ran out would be alive again.
        """
        step = (delta or timedelta()) + timedelta(**parts)
        if step < timedelta():
            raise ValueError(f"The clock can't go back by {-step}; it only goes forward.")
        self.offset += step
        if self in _in_use:
            clock.move(self.offset)
        return self.now()

    def now(self) -> datetime:
        """Return the time as the apps see it, aware."""
        return timezone.now() + self.offset


@contextmanager
def virtual_clock() -> Iterator[VirtualClock]:
    """Let the time of both apps be set forward while the block runs.

    >>> with virtual_clock() as clock:
    ...     clock.advance(minutes=5)

    It holds for every thread of this process and for every database: leases run out, back-offs
    and due times come, ticks are due, and cleaning and monitoring see old rows. The clock goes on
    as usual in between. It does not hold for other processes, for your own ``timezone.now()``,
    or for what counts seconds by itself: budgets, heartbeats, time limits, the broker.

    Raises:
        RuntimeError: there is one already; use that.
    """
    if _in_use:
        raise RuntimeError("There is a virtual_clock() already: advance that one.")
    virtual = VirtualClock()
    with ExitStack() as stack:
        _in_use.append(virtual)
        stack.callback(clock.move, timedelta())
        stack.callback(_in_use.remove, virtual)
        for field in _fields_that_default_to_now():
            stack.enter_context(mock.patch.object(field, "get_default", clock.local_now))
        yield virtual


def current() -> VirtualClock | None:
    """Return the clock whose block runs now, if one does."""
    return _in_use[-1] if _in_use else None


def _fields_that_default_to_now() -> list[Field[Any, Any]]:
    """Return the fields of jobs, events and what belongs to them that are born with the time.

    Their default is Django's own function, because it is written in migrations.
    """
    return [
        field
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.default is timezone.now
        and any(base.__module__.partition(".")[0] in _APPS for base in model.__mro__)
    ]
