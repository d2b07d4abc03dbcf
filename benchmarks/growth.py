"""outbox-growth and outbox-clean: does a row cost the same among a million others?

The rows are copies of a thousand really sent ones, uuid and signature included, so that the relay
verifies every one of them. Only this library is measured: its promise is that the cost stays flat.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from . import peers
from .bench import Bench
from .cases import Case
from .watching import await_settled, watch

SEEDS = 1000
PORTION = 10_000


def relay_cases(bench: Bench) -> list[Case]:
    sizes = bench.options.sizes if peers.OURS in bench.options.peers else ()
    return [
        *(_case(f"backlog of {size:,} due", _backlog, bench, size) for size in sizes),
        *(
            _case(f"{PORTION:,} due beside {size:,} parked and {size:,} sent", _beside, bench, size)
            for size in sizes
        ),
    ]


def clean_cases(bench: Bench) -> list[Case]:
    sizes = bench.options.sizes if peers.OURS in bench.options.peers else ()
    return [_case(f"{size:,} old rows", _clean, bench, size) for size in sizes]


def _case(label: str, measure: Any, bench: Bench, size: int) -> Case:
    return Case(peers.OURS, label, partial(measure, bench, size))


def _backlog(bench: Bench, size: int) -> dict[str, Any]:
    """Relay all of `size` waiting messages; the first and the last 10,000 are timed apart.

    In a run that is ended before that, the last are those that arrived last.
    """
    return _relay(bench, [("due", size - SEEDS)], size)


def _beside(bench: Bench, size: int) -> dict[str, Any]:
    """Relay 10,000 messages of a table that also holds `size` parked and `size` sent ones."""
    return _relay(bench, [("sent", size), ("parked", size), ("due", PORTION - SEEDS)], PORTION)


def _relay(bench: Bench, rows: list[tuple[str, int]], messages: int) -> dict[str, Any]:
    ours, queue = peers.named(peers.OURS), bench.queue("redis")
    with bench.databases.fresh(bench.filled(ours, "redis", SEEDS)) as conninfo:
        _multiply(bench, conninfo, rows)
        queue.purge()
        with bench.running(
            ours, ours.relays[0].command, conninfo=conninfo, broker="redis"
        ) as process:
            seen = watch(process, queue.arrived_and_taken, messages, bench.options.cap_seconds)
            left = 0
            if not seen.is_capped:
                left = await_settled(seen, process, conninfo, str(ours.unsettled))
        last, arrived = seen.samples[-1][1], queue.arrived_and_taken()
        queue.purge()
    return {
        "messages": messages,
        "rate": seen.rate,
        "durable_rate": seen.durable_rate,
        "first_rate": seen.rate_between(0, PORTION),
        "last_rate": seen.rate_between(last - PORTION, last),
        "mib": seen.peak_mib,
        "left": left,
        "capped": seen.is_capped,
        **({} if seen.is_capped else _differences(arrived, messages)),
    }


def _clean(bench: Bench, size: int) -> dict[str, Any]:
    """Clean `size` sent rows, all too old, and leave the thousand that wait."""
    ours = peers.named(peers.OURS)
    with bench.databases.fresh(bench.filled(ours, "redis", SEEDS)) as conninfo:
        _multiply(bench, conninfo, [("old", size)])
        result = bench.call(ours, "clean", conninfo=conninfo)
    if result["deleted"] != size or result["kept"] != SEEDS:
        raise AssertionError(f"the cleaner should have deleted {size} rows: {result}")
    return {**result, "rate": size / result["seconds"]}


def _multiply(bench: Bench, conninfo: str, rows: list[tuple[str, int]]) -> None:
    for state, number in rows:
        if number % SEEDS:
            raise ValueError(f"sizes are multiples of {SEEDS:,}, not {number + SEEDS:,}")
        arguments = {"state": state, "rows": number}
        bench.call(peers.named(peers.OURS), "multiply", arguments, conninfo=conninfo)
    bench.databases.vacuum(conninfo)


def _differences(arrived: int, wanted: int) -> dict[str, int]:
    return {
        "arrived": min(arrived, wanted),
        "lost": max(0, wanted - arrived),
        "duplicates": max(0, arrived - wanted),
    }
