"""queue-latency: from the call that enqueues a job to the start of its body, on an idle worker."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from . import draining, peers
from .bench import Bench
from .cases import Case
from .drains import at_work, enqueue
from .drivers import ledger
from .drivers.statistics import percentiles
from .peers import Peer, Worker
from .send import TITLES

PER_SECOND = 20
WARM_UP = 20
REST_SECONDS = 0.5
KINDS = {"independent": 0, "a lane each": 1_000_000}
"""Lanes by the kind of queue: so many that no two jobs share one."""


def cases(bench: Bench) -> list[Case]:
    """Return our kinds of queues and the others' workers, with each broker that they use."""
    there = [broker for broker in TITLES if not bench.missing(broker)]
    found = []
    for peer in [peer for peer in peers.PEERS if peer.name in bench.options.peers]:
        for worker in peer.workers.get("queue-latency", ()):
            kinds = KINDS if peer.name == peers.OUR_QUEUES else {worker.label: 0}
            for broker in there if peer.uses_broker else there[:1]:
                for kind, lanes in kinds.items():
                    label = f"{kind}, {TITLES[broker]}" if peer.uses_broker else kind
                    measure = partial(_measure, bench, peer, worker, broker, lanes)
                    found.append(Case(peer.name, label, measure))
    return found


def _measure(bench: Bench, peer: Peer, worker: Worker, broker: str, lanes: int) -> dict[str, Any]:
    jobs = WARM_UP + bench.options.sends
    queue = bench.queue(broker)
    with ExitStack() as stack:
        conninfo = ""
        if peer.unfinished:
            conninfo = stack.enter_context(bench.databases.fresh(bench.migrated(peer)))
        where: dict[str, Any] = {"conninfo": conninfo, "broker": broker}
        enqueue(bench, peer, {"jobs": 1, "lanes": lanes}, **where)
        workers = stack.enter_context(at_work(bench, peer, worker, **where, lanes=lanes))
        draining.await_starts(workers, bench.ledger, 1, bench.options.cap_seconds)
        time.sleep(REST_SECONDS)
        bench.ledger.write_bytes(b"")
        arguments = {"jobs": jobs, "per_second": PER_SECOND, "lanes": lanes}
        called = bench.call(peer, "trickle", arguments, conninfo=conninfo, broker_url=queue.url)[
            "called"
        ]
        draining.await_starts(workers, bench.ledger, jobs, bench.options.cap_seconds)
    queue.purge()
    starts = ledger.read(bench.ledger)
    waits = [(start.at - called[start.number]) / 1e6 for start in starts if start.number >= WARM_UP]
    return {
        "jobs": len(waits),
        **{f"wait_{p}": value for p, value in percentiles(waits)},
        **draining.tally(starts, jobs),
    }
