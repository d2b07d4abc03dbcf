"""The protocol between the runner and a driver.

A driver is started as `python -m benchmarks.drivers.NAME VERB [JSON]` with its peer's interpreter,
from the root of the repository. VERB names one of its public methods, JSON holds the arguments. The
last line of its standard output is the result, one JSON object.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any


class Driver:
    """Base class of drivers; `packages` are the distributions whose versions are reported."""

    packages: tuple[str, ...] = ()

    def main(self) -> None:
        verb = sys.argv[1]
        arguments = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
        answer(getattr(self, verb)(**arguments))

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in self.packages}


def answer(result: dict[str, Any] | None) -> None:
    print(json.dumps(result or {}), flush=True)


def peak_mib() -> float:
    """Return the most memory this process had resident, in MiB (Linux, VmHWM)."""
    return peak_mib_of("self")


def peak_mib_of(pid: int | str) -> float:
    """The same for another process; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/status") as status:
            kib = next((line.split()[1] for line in status if line.startswith("VmHWM")), "0")
    except OSError:
        return 0.0
    return round(int(kib) / 1024, 1)
