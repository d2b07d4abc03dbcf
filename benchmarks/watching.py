"""Watches a relay from outside: when messages arrive at the broker, and when rows are settled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.supervision import processes

from .drivers.protocol import peak_mib_of

POLL_SECONDS = 0.01
START_SECONDS = 60
STALL_SECONDS = 30
SETTLE_SECONDS = 60


class RelayStalled(RuntimeError):
    """The relay ended, never began, or stopped sending before all had arrived."""


@dataclass
class Watch:
    """Samples of (monotonic seconds, messages that have arrived), from the first arrival on."""

    wanted: int
    samples: list[tuple[float, int]] = field(default_factory=list)
    settled_at: float | None = None
    peak_mib: float = 0.0
    is_capped: bool = False

    @property
    def rate(self) -> float | None:
        """Messages per second from the first that was seen until the last."""
        return _rate(self.samples[0], self.samples[-1])

    @property
    def durable_rate(self) -> float | None:
        """The same, until no row of them waits any more."""
        if self.settled_at is None:
            return None
        return _rate(self.samples[0], (self.settled_at, self.samples[-1][1]))

    def rate_between(self, start: int, end: int) -> float | None:
        """Return the rate while the messages from number `start` to `end` arrived."""
        inside = [sample for sample in self.samples if start <= sample[1] <= end]
        return _rate(inside[0], inside[-1]) if len(inside) > 1 else None

    def add(self, arrived: int) -> None:
        if arrived and (not self.samples or arrived != self.samples[-1][1]):
            self.samples.append((time.monotonic(), arrived))


def _rate(start: tuple[float, int], end: tuple[float, int]) -> float | None:
    seconds = end[0] - start[0]
    return (end[1] - start[1]) / seconds if seconds > 0 else None


def watch(
    process: processes.Managed, arrived: Callable[[], int], wanted: int, cap_seconds: float
) -> Watch:
    """Watch until `wanted` messages have arrived, or for `cap_seconds` from the first one on.

    Raises:
        RelayStalled
    """
    seen = Watch(wanted)
    started = time.monotonic()
    while not seen.samples or seen.samples[-1][1] < wanted:
        has_ended = process.poll() is not None
        seen.peak_mib = peak_mib_of(process.pid) or seen.peak_mib
        seen.add(arrived())
        at, count = seen.samples[-1] if seen.samples else (started, 0)
        now = time.monotonic()
        if seen.samples and now - seen.samples[0][0] > cap_seconds:
            seen.is_capped = True
            break
        if count < wanted and (
            has_ended or now - at > (STALL_SECONDS if seen.samples else START_SECONDS)
        ):
            raise RelayStalled(f"{process.failure(f'sent {count} of {wanted} messages')}")
        time.sleep(POLL_SECONDS)
    return seen


def await_settled(seen: Watch, process: processes.Managed, conninfo: str, query: str) -> int:
    """Wait until `query` counts no row, and note when; return what it counts in the end."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while left := count(connection, query):
            seen.peak_mib = peak_mib_of(process.pid) or seen.peak_mib
            if time.monotonic() > deadline:
                return left
            time.sleep(POLL_SECONDS)
    seen.settled_at = time.monotonic()
    return 0


def count(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    return int(row[0])
