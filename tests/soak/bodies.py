"""What bodies write into the ledger of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.ledger import Ledger
from tests.supervision import processes

PATIENCE_SECONDS = 60.0

REDELIVERED = "redelivered"
"""The note of a message that the broker hands out again, by its own word."""


class MeantToBreak(Exception):
    """An error that the workload wants."""


def ledger() -> Ledger:
    """Return the ledger of this run."""
    return Ledger(Path(os.environ["SOAK_LEDGER"]))


def await_another(item: str) -> None:
    """Wait, in the body of this item, until it has begun once more elsewhere."""
    processes.wait_until(lambda: _times_begun(item) > 1, PATIENCE_SECONDS, "a second beginning")


@contextmanager
def body(item: str, lane: str = "", note: str = "") -> Iterator[None]:
    """Note that a body began, and that it ended, or broke."""
    notes = ledger()
    notes.note("began", item, lane, note=note)
    try:
        yield
    except Exception as error:
        notes.note("broke", item, lane, note=type(error).__name__)
        raise
    notes.note("ended", item, lane)


def _times_begun(item: str) -> int:
    return sum(entry.what == "began" and entry.item == item for entry in ledger().entries())
