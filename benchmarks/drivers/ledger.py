"""What the bodies of jobs leave behind: a file of records, one for each body that started.

A record is one small write to a file that everybody appends to, so the records lie in the order
in which the bodies started, whichever process ran them. It costs some microseconds, alike for all.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .environment import LEDGER_VARIABLE

RECORD = struct.Struct("<qqq")


@dataclass(frozen=True)
class Start:
    """A body started: the number of its job, its lane, and when (monotonic nanoseconds)."""

    number: int
    lane: int
    at: int


def note(number: int, lane: int = 0) -> None:
    """Record that the body of this job starts now; every process of a machine has one clock."""
    os.write(_descriptor(), RECORD.pack(number, lane, time.monotonic_ns()))


def count(path: Path) -> int:
    """Return how many bodies have started."""
    return path.stat().st_size // RECORD.size if path.exists() else 0


def read(path: Path) -> list[Start]:
    """Return all starts, in their order."""
    data = path.read_bytes() if path.exists() else b""
    whole = len(data) - len(data) % RECORD.size
    return [Start(*fields) for fields in RECORD.iter_unpack(data[:whole])]


@cache
def _descriptor() -> int:
    return os.open(os.environ[LEDGER_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
