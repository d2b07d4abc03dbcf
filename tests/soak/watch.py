"""Follows the ledger while it is written: who is in a body just now, and what has ended."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.ledger import Entry


class Watch:
    """What the ledger has told up to the last ``update()``."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self.in_body: dict[str, str] = {}
        """The item of each process that is in a body."""
        self.ended: set[str] = set()
        self.dropped: set[str] = set()
        self.last_at = 0.0
        """The moment of the newest entry."""

    def update(self) -> None:
        """Read what was appended meanwhile."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines.rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            self._take(Entry(**json.loads(line)))

    def _take(self, entry: Entry) -> None:
        self.last_at = max(self.last_at, entry.at)
        match entry.what:
            case "began":
                self.in_body[entry.process] = entry.item
            case "ended" | "broke" | "gone":
                self.in_body.pop(entry.process, None)
        if entry.what == "ended":
            self.ended.add(entry.item)
        elif entry.what == "dropped":
            self.dropped.add(entry.item)
