"""Watches workers from outside, by the file in which the bodies of jobs note their starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.supervision import processes

from . import cpu
from .drivers import ledger
from .drivers.ledger import Start
from .watching import POLL_SECONDS, START_SECONDS, RelayStalled

STALL_SECONDS = 30


@dataclass(frozen=True)
class Drain:
    """Whether all bodies started within the cap, and how much processor time each one took.

    That is the workers' time, in microseconds, from the first start that was seen to the last.
    """

    is_complete: bool
    cpu_us: float | None = None


class WorkersStalled(RelayStalled):
    """The workers ended, never began, or stopped before all jobs had run."""


def await_starts(
    workers: Sequence[processes.Managed], path: Path, wanted: int, cap_seconds: float
) -> Drain:
    """Wait until `wanted` bodies have started, or for `cap_seconds` from the first one on.

    One of several workers may end: that is its peer's problem, as long as the others go on.

    Raises:
        WorkersStalled
    """
    first = _await(workers, path, 1, START_SECONDS, wanted)
    used, began_at, started = _cpu_seconds(workers), time.monotonic(), first
    while started < wanted and time.monotonic() - began_at < cap_seconds:
        started = _await(workers, path, started + 1, STALL_SECONDS, wanted)
        time.sleep(POLL_SECONDS)
    bodies = started - first
    return Drain(
        started >= wanted, 1e6 * (_cpu_seconds(workers) - used) / bodies if bodies else None
    )


def _await(
    workers: Sequence[processes.Managed], path: Path, number: int, patience: float, wanted: int
) -> int:
    """Wait until so many bodies have started, at most `patience` seconds; return how many have."""
    deadline = time.monotonic() + patience
    while True:
        have_ended = all(worker.poll() is not None for worker in workers)
        started = ledger.count(path)
        if started >= number:
            return started
        if have_ended or time.monotonic() > deadline:
            raise WorkersStalled(f"{workers[0].failure(f'ran {started} of {wanted} jobs')}")
        time.sleep(POLL_SECONDS)


def _cpu_seconds(workers: Sequence[processes.Managed]) -> float:
    return cpu.seconds(worker.pid for worker in workers)


def rate(starts: Sequence[Start]) -> float | None:
    """Return bodies per second, from the first to the last start."""
    if len(starts) < 2 or starts[-1].at == starts[0].at:
        return None
    return 1e9 * (len(starts) - 1) / (starts[-1].at - starts[0].at)


def disorder(starts: Sequence[Start]) -> int:
    """Return how many bodies started after one that their lane has later."""
    latest: dict[int, int] = {}
    wrong = 0
    for start in starts:
        wrong += start.number < latest.get(start.lane, -1)
        latest[start.lane] = max(start.number, latest.get(start.lane, -1))
    return wrong


def tally(starts: Sequence[Start], wanted: int) -> dict[str, Any]:
    """Return how many of `wanted` jobs ran, never ran, and ran more than once."""
    distinct = len({start.number for start in starts})
    return {"ran": distinct, "lost": wanted - distinct, "duplicates": len(starts) - distinct}
