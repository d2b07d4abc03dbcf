"""queue-backlog: does a job cost the same among a million others, or behind many that can't run?

Only this library is measured: its promise is that the cost stays flat.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from . import draining, peers
from .bench import Bench
from .cases import Case
from .drains import LANES, at_work, enqueue
from .drivers import ledger
from .peers import Worker

WARM_UP = 500
MEASURED = 5_000
FEW = 1_000
BLOCKED = (0, 5_000, 100_000)
LAST = 10
"""Jobs that are enqueued in the end, the usual way: their kicks wake the worker."""

WAITING = {"one lane": 1, "independent": 0}


def cases(bench: Bench) -> list[Case]:
    if peers.OUR_QUEUES not in bench.options.peers:
        return []
    one, two = peers.named(peers.OUR_QUEUES).workers["queue-backlog"]
    sizes = {"few": FEW, "many": max(bench.options.sizes)}
    waiting = [
        Case(
            peers.OUR_QUEUES,
            f"{kind}, {amount} wait",
            partial(_among_waiting, bench, one, lanes, size),
        )
        for kind, lanes in WAITING.items()
        for amount, size in sizes.items()
    ]
    blocked = [
        Case(
            peers.OUR_QUEUES,
            f"{MEASURED:,} runnable behind {rows:,} blocked",
            partial(_behind_blocked, bench, two, rows),
        )
        for rows in BLOCKED
    ]
    return [*waiting, *blocked]


def _among_waiting(bench: Bench, worker: Worker, lanes: int, size: int) -> dict[str, Any]:
    """Time jobs while at least `size` more of them wait."""
    rows = size + WARM_UP + MEASURED
    return _measure(bench, worker, {"rows": rows, "lanes": lanes}, jobs=LAST, lanes=lanes)


def _behind_blocked(bench: Bench, worker: Worker, rows: int) -> dict[str, Any]:
    """Time jobs of a hundred lanes that came after those of a lane whose first one runs."""
    fill = {"rows": rows, "lanes": 1, "blocked": True}
    return _measure(bench, worker, fill, jobs=WARM_UP + MEASURED, lanes=LANES)


def _measure(
    bench: Bench, worker: Worker, fill: dict[str, Any], jobs: int, lanes: int
) -> dict[str, Any]:
    ours = peers.named(peers.OUR_QUEUES)
    with bench.databases.fresh(_filled(bench, fill)) as conninfo:
        where: dict[str, Any] = {"conninfo": conninfo, "broker": "redis"}
        enqueue(bench, ours, {"jobs": jobs, "lanes": lanes}, **where)
        with at_work(bench, ours, worker, **where, lanes=lanes) as workers:
            wanted = WARM_UP + MEASURED
            drain = draining.await_starts(workers, bench.ledger, wanted, bench.options.cap_seconds)
    bench.queue("redis").purge()
    starts = ledger.read(bench.ledger)
    return {
        "waiting": fill["rows"],
        "rate": draining.rate(starts[WARM_UP : WARM_UP + MEASURED]),
        "cpu_us": drain.cpu_us,
        "capped": not drain.is_complete,
        "duplicates": len(starts) - len({start.number for start in starts}),
        **({"disorder": draining.disorder(starts)} if lanes else {}),
    }


def _filled(bench: Bench, fill: dict[str, Any]) -> str:
    """Return the template in which those rows wait."""
    ours = peers.named(peers.OUR_QUEUES)

    def build(conninfo: str) -> None:
        bench.call(ours, "fill_queue", fill, conninfo=conninfo)

    return bench.databases.template(f"backlog {fill}", build, base=bench.migrated(ours))
