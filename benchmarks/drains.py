"""queue-independent-*, queue-lanes, queue-one-lane: how fast workers work off what waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import psycopg

from tests.supervision import processes

from . import draining, peers
from .bench import Bench
from .cases import Case
from .drivers import ledger
from .peers import Peer, Worker
from .watching import POLL_SECONDS, SETTLE_SECONDS, count

LANES = 100
BARE_LOOP = "psycopg"


def independent_cases(bench: Bench, broker: str) -> list[Case]:
    return _cases(bench, "queue-independent", broker, lanes=0)


def lanes_cases(bench: Bench) -> list[Case]:
    return _cases(bench, "queue-lanes", "redis", lanes=LANES)


def one_lane_cases(bench: Bench) -> list[Case]:
    found = _cases(bench, "queue-one-lane", "redis", lanes=1)
    if BARE_LOOP in bench.options.peers:
        found.append(Case(BARE_LOOP, "BEGIN, UPDATE, COMMIT", partial(_measure_loop, bench)))
    return found


@contextmanager
def at_work(
    bench: Bench, peer: Peer, worker: Worker, *, conninfo: str, broker: str, lanes: int
) -> Iterator[list[processes.Managed]]:
    """Yield the processes of `worker`; what they have prefetched is gone afterwards."""
    command = [word.replace("QUEUE", queue_name(lanes)) for word in worker.command]
    with ExitStack() as stack:
        yield [
            stack.enter_context(bench.running(peer, command, conninfo=conninfo, broker=broker))
            for _ in range(worker.processes)
        ]


def queue_name(lanes: int) -> str:
    return "Laned" if lanes else "Independent"


def unfinished(peer: Peer, lanes: int) -> str | None:
    """Return the query that counts the jobs that wait or run."""
    return peer.unfinished and peer.unfinished.replace("QUEUE", queue_name(lanes).lower())


def _cases(bench: Bench, workload: str, broker: str, lanes: int) -> list[Case]:
    """Return one case for every worker of every chosen peer."""
    return [
        Case(peer.name, worker.label, partial(_measure, bench, peer, worker, broker, lanes))
        for peer in peers.PEERS
        if peer.name in bench.options.peers
        for worker in peer.workers.get(workload, ())
    ]


def _measure(bench: Bench, peer: Peer, worker: Worker, broker: str, lanes: int) -> dict[str, Any]:
    jobs = max(lanes, 1, round(bench.options.jobs * peer.share))
    query = unfinished(peer, lanes)
    with ExitStack() as stack:
        conninfo = ""
        if query:
            conninfo = stack.enter_context(bench.databases.fresh(bench.migrated(peer)))
        enqueue(bench, peer, {"jobs": jobs, "lanes": lanes}, conninfo=conninfo, broker=broker)
        workers = stack.enter_context(
            at_work(bench, peer, worker, conninfo=conninfo, broker=broker, lanes=lanes)
        )
        drain = draining.await_starts(workers, bench.ledger, jobs, bench.options.cap_seconds)
        settled_at, left = None, 0
        if query and drain.is_complete:
            settled_at, left = _await_finished(conninfo, query)
    bench.queue(broker).purge()
    starts = ledger.read(bench.ledger)
    return {
        "jobs": jobs,
        "rate": draining.rate(starts),
        "durable_rate": settled_at and jobs / (settled_at - starts[0].at / 1e9),
        "cpu_us": drain.cpu_us,
        "left": left,
        "capped": not drain.is_complete,
        **({"disorder": draining.disorder(starts)} if lanes else {}),
        **(draining.tally(starts, jobs) if drain.is_complete else {}),
    }


def enqueue(
    bench: Bench, peer: Peer, arguments: dict[str, Any], *, conninfo: str, broker: str
) -> None:
    """Let jobs wait, in an empty queue and an empty ledger; their kicks wait at the broker."""
    queue = bench.queue(broker)
    queue.purge()
    bench.ledger.write_bytes(b"")
    bench.call(peer, "enqueue", arguments, conninfo=conninfo, broker_url=queue.url)
    if conninfo:
        bench.databases.vacuum(conninfo)


def _await_finished(conninfo: str, query: str) -> tuple[float | None, int]:
    """Wait until no job waits or runs; return when that was, or how many are left at last."""
    deadline = time.monotonic() + SETTLE_SECONDS
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while left := count(connection, query):
            if time.monotonic() > deadline:
                return None, left
            time.sleep(POLL_SECONDS)
    return time.monotonic(), 0


def _measure_loop(bench: Bench) -> dict[str, Any]:
    """Let the yardstick mark the rows of our own table, as our jobs lie in it."""
    ours = peers.named(peers.OUR_QUEUES)
    with bench.databases.fresh(bench.migrated(ours)) as conninfo:
        arguments = {"jobs": bench.options.jobs, "lanes": 1}
        enqueue(bench, ours, arguments, conninfo=conninfo, broker="redis")
        bench.queue("redis").purge()
        return bench.call(
            peers.named(BARE_LOOP), "loop", {"table": "job_queue_laned"}, conninfo=conninfo
        )
