"""What happened, and who did it: a file that every process of a run appends to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

What = Literal[
    "intended",  # a producer is about to write the item
    "committed",  # its transaction is committed, and the producer knows it
    "aborted",  # its transaction is rolled back, and the producer knows it
    "began",  # its body has begun
    "ended",  # its body has done what it is for
    "broke",  # its body ended by an error that was meant to happen
    "held",  # a process was stopped or cut off
    "released",  # ... and goes on
    "struck",  # a fault is about to hit this process; the note says which
    "gone",  # a process was seen to have ended
    "dropped",  # the broker lost the message of this item
    "fault",  # something was broken on purpose; the note says what
]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger.

    ``at`` is in seconds of a clock that all writers share; ``item`` is the producer's own name for
    a job or event, given once and never again; items of one ``lane`` have to run in order, and ""
    is no lane; ``process`` tells who had it, as a process id or any name.
    """

    at: float
    what: What
    item: str = ""
    lane: str = ""
    process: str = ""
    note: str = ""


class Ledger:
    """Appends entries to a file, one line each.

    A line is one ``write()`` with O_APPEND: lines of several processes don't mix, and whoever is
    killed leaves whole lines. The clock is CLOCK_MONOTONIC, the same for all processes of a machine
    (on Linux).
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self.clock = path, clock

    def note(
        self,
        what: What,
        item: str = "",
        lane: str = "",
        process: str = "",
        note: str = "",
        at: float | None = None,
    ) -> None:
        """Append an entry; ``process`` is the writer's own id and ``at`` now unless given."""
        moment = self.clock() if at is None else at
        entry = Entry(moment, what, item, lane, process or str(os.getpid()), note)
        line = json.dumps(asdict(entry)).encode() + b"\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def entries(self) -> list[Entry]:
        """Return what was noted, oldest first."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        return sorted((Entry(**json.loads(line)) for line in lines), key=lambda entry: entry.at)
