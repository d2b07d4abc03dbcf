"""What can be chosen for a soak."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = {
    "kill-a-child": 4,
    "kill-a-worker": 2,
    "kill-a-producer": 1,
    "hold-a-child": 3,
    "hold-a-producer": 1,
    "hold-a-worker": 1,
    "cut-a-connection": 5,
    "restart-the-broker": 2,
    "empty-the-broker": 1,
    "swallow-packets": 2,
    "two-beats": 1,
    "no-beat": 1,
    "roll-a-worker": 2,
    "roll-a-producer": 1,
}
"""What can be broken, and how often compared with the others."""


@dataclass(frozen=True)
class Options:
    """``seconds`` is how long things are broken; ``lease`` is in seconds too."""

    seconds: float
    seed: int
    database: str
    broker: str
    lease: float
    pace: float
    drain: float
    out: Path | None
    directory: Path | None
    sabotage: bool
    only: list[str] | None


def parse(argv: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Break everything at random while jobs, events and messages are produced,"
        " then check that every promise was kept.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=60, help="how long to break things (60)")
    add("--seed", type=int, help="of all dice; printed by every run")
    add("--database", choices=["postgresql", "mariadb"], default="postgresql")
    add("--broker", choices=["redis", "rabbitmq"], default="redis", help="a private one")
    add("--lease", type=float, default=3, help="LEASE_SECONDS of both apps (3)")
    add("--pace", type=float, default=1, help="seconds between two faults on average (1)")
    add("--drain", type=float, default=120, help="seconds to come to rest afterwards (120)")
    add("--out", type=Path, help="write the report as JSON to this file")
    add("--directory", type=Path, help="for ledger and logs, which are kept then")
    add("--sabotage", action="store_true", help="frauds on the tables, which must be noticed")
    add("--only", nargs="+", choices=list(WEIGHTS), metavar="FAULT", help=", ".join(WEIGHTS))
    given = vars(parser.parse_args(argv))
    if given["seed"] is None:
        given["seed"] = random.SystemRandom().randrange(10**6)
    return Options(**given)
