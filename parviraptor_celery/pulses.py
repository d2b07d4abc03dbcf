"""What has to happen again and again, and when it last did. Both apps use this module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import router

MISSED_INTERVALS = 3
"""So many intervals without a beat mean that nobody does the work."""


@dataclass(frozen=True)
class Pulse:
    """Periodic work that monitoring watches.

    ``ticks`` is the model with a row for it, under any of ``names``; ``interval`` returns seconds.
    """

    what: str
    ticks: Any
    names: tuple[str, ...]
    interval: Callable[[], float]

    def age(self) -> float | None:
        """Return the seconds since it last happened, by the database's clock; None for never."""
        age: timedelta | None = self.ticks.objects.age(
            self.names, using=router.db_for_write(self.ticks)
        )
        return None if age is None else age.total_seconds()

    def is_missing(self, age: float | None) -> bool:
        """Return whether nobody did it for so long that somebody should look."""
        return age is None or age > MISSED_INTERVALS * self.interval()


_watched: dict[str, Pulse] = {}


def watch(pulse: Pulse) -> None:
    """Let the page ``queue-health/`` tell the age of ``pulse``, and complain when it is missing."""
    _watched[pulse.what] = pulse


def watched() -> list[Pulse]:
    """Return what other apps want to have watched."""
    return list(_watched.values())
