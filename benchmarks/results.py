"""Results as JSON lines, and the machine's speed beside each."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROBE_ROUNDS = 500_000


@dataclass(frozen=True)
class Measurement:
    """One repetition of one case; `result` is empty where `error` tells why."""

    workload: str
    peer: str
    label: str
    repetition: int
    probe_ms: float
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    at: float = field(default_factory=time.time)

    @property
    def case(self) -> tuple[str, str]:
        return self.peer, self.label


def probe() -> float:
    """Time a fixed loop of pure Python, in milliseconds: how fast the machine is right now."""
    started = time.perf_counter()
    total = 0
    for number in range(PROBE_ROUNDS):
        total += number & 7
    return 1e3 * (time.perf_counter() - started)


class ResultFile:
    """A file of JSON lines: first the run's circumstances, then one line per measurement."""

    def __init__(self, path: Path, circumstances: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._append({"circumstances": circumstances})

    def add(self, measurement: Measurement) -> None:
        self._append(asdict(measurement))

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read(paths: Iterable[Path]) -> tuple[dict[str, Any], list[Measurement]]:
    """Return the circumstances (of the last file) and the measurements of all files."""
    circumstances: dict[str, Any] = {}
    measurements = []
    for path in paths:
        for line in path.read_text().splitlines():
            parsed = json.loads(line)
            if "circumstances" in parsed:
                circumstances = parsed["circumstances"]
            else:
                measurements.append(Measurement(**parsed))
    return circumstances, measurements


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of those that are there, or None if none is."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None
