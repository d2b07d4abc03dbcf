"""Notes when the machine itself held a process up: on a slow one that explains lost leases."""

from __future__ import annotations

import threading
import time

from tests.faults.ledger import Ledger

STEP_SECONDS = 0.1
STALLED = "machine stalled"
"""The kind of fault."""


def watch_for_stalls(ledger: Ledger, longest_seconds: float) -> threading.Event:
    """Let a thread note each time this process did not run for so long, until the event is set."""
    stop = threading.Event()
    arguments = (ledger, longest_seconds, stop)
    threading.Thread(target=_watch, args=arguments, name="stalls", daemon=True).start()
    return stop


def _watch(ledger: Ledger, longest_seconds: float, stop: threading.Event) -> None:
    woken = time.monotonic()
    while not stop.wait(STEP_SECONDS):
        slept, woken = woken, time.monotonic()
        if woken - slept > STEP_SECONDS + longest_seconds:
            ledger.note("fault", note=STALLED)
            ledger.note("struck", note=STALLED, at=slept)
            ledger.note("held", at=slept)
            ledger.note("released", at=woken)
