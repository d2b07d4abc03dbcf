"""How many independent jobs a worker leases at a time.

Many short ones cost one claim then; and of long ones nobody sits on those that another worker
could run meanwhile.
"""

from __future__ import annotations

import time
from typing import ClassVar

FIRST = 10
MOST = 100
QUICK_SECONDS = 0.25
SLOW_SECONDS = 1.0


class Pace:
    """The size of the next batch of a queue: doubled after a quick one, halved after a slow one.

    Remembered in each process, so that every kick goes on with what the last one found out.
    """

    _known: ClassVar[dict[type, Pace]] = {}

    def __init__(self) -> None:
        self.rows = FIRST
        self._begun: tuple[int, float] | None = None

    @classmethod
    def of(cls, queue: type) -> Pace:
        """Return the pace of ``queue`` in this process."""
        return cls._known.setdefault(queue, cls())

    def begin(self, rows: int) -> None:
        """Note that a batch of so many rows begins now."""
        self._begun = (rows, time.monotonic()) if rows else None

    def end(self) -> None:
        """Note that nothing of the batch is being run any more."""
        self._begun = None

    def next_batch(self) -> int:
        """Return how many rows to lease, after what the last batch took."""
        if self._begun is not None:
            rows, begun = self._begun
            seconds, self._begun = time.monotonic() - begun, None
            if seconds > SLOW_SECONDS:
                self.rows = max(1, min(rows, self.rows) // 2)
            elif seconds < QUICK_SECONDS and rows >= self.rows:
                self.rows = min(MOST, self.rows * 2)
        return self.rows
