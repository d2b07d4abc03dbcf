"""The verbs that the drivers of job queues share: enqueue, trickle."""

from __future__ import annotations

import time
from typing import Any

from .protocol import Driver


class QueueDriver(Driver):
    """A peer that enqueues jobs; the body of each calls `ledger.note()` and does nothing else."""

    def enqueue_all(self, jobs: list[tuple[int, int]], is_laned: bool) -> None:
        """Enqueue jobs, pairs of number and lane, the quickest way there is."""
        raise NotImplementedError

    def enqueue_one(self, number: int, lane: int, is_laned: bool) -> None:
        """Enqueue one job the usual way."""
        raise NotImplementedError

    def enqueue(self, jobs: int, lanes: int) -> dict[str, Any]:
        """Enqueue that many, lane by lane in turn; without lanes they are independent."""
        self.enqueue_all([(number, number % max(1, lanes)) for number in range(jobs)], lanes > 0)
        return {"jobs": jobs}

    def trickle(self, jobs: int, per_second: float, lanes: int) -> dict[str, Any]:
        """Enqueue one after another at that rate; return the moment before each call."""
        called, begin = [], time.monotonic()
        for number in range(jobs):
            time.sleep(max(0.0, begin + number / per_second - time.monotonic()))
            called.append(time.monotonic_ns())
            self.enqueue_one(number, number % max(1, lanes), lanes > 0)
        return {"called": called}
