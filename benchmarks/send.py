"""outbox-send: what a send adds to a transaction of one INSERT."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import psycopg

from .bench import Bench
from .cases import Case
from .peers import PEERS, Peer
from .watching import POLL_SECONDS, count

TITLES = {"redis": "Redis", "rabbitmq": "RabbitMQ"}
ARRIVE_SECONDS = 10


def cases(bench: Bench) -> list[Case]:
    """Return a case for every kind of send; those that touch the broker once for each."""
    there = [broker for broker in TITLES if not bench.missing(broker)]
    found = []
    for peer in PEERS:
        for kind, label in peer.sends.items() if peer.name in bench.options.peers else ():
            touches = kind in peer.sends_to_broker
            for broker in there if touches else there[:1]:
                text = f"{label}, {TITLES[broker]}" if touches else label
                found.append(Case(peer.name, text, partial(_measure, bench, peer, kind, broker)))
    return found


def _measure(bench: Bench, peer: Peer, kind: str, broker: str) -> dict[str, Any]:
    queue = bench.queue(broker)
    queue.purge()
    with bench.databases.fresh(bench.migrated(peer)) as conninfo:
        arguments = {"sends": bench.options.sends, "kind": kind}
        result = bench.call(peer, "send", arguments, conninfo=conninfo, broker_url=queue.url)
        result |= _account(queue, conninfo, peer.unsettled, result)
    queue.purge()
    return result


def _account(
    queue: Any, conninfo: str, unsettled: str | None, result: dict[str, Any]
) -> dict[str, int]:
    """Every send must have run, have arrived, or wait in the outbox; return how many did what."""
    deadline = time.monotonic() + ARRIVE_SECONDS
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while True:
            waits = count(connection, unsettled) if unsettled else 0
            arrived = queue.arrived()
            lost = result["sent"] - result["calls"] - arrived - waits
            if lost <= 0 or time.monotonic() > deadline:
                return {"arrived": arrived, "waits": waits, "lost": lost}
            time.sleep(POLL_SECONDS)
