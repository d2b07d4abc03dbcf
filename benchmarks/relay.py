"""outbox-relay-*: how fast waiting messages reach the broker, and whether each does so once."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from .bench import Bench
from .cases import Case
from .peers import PEERS, Peer, Relay
from .watching import await_settled, watch


def cases(bench: Bench, broker: str) -> list[Case]:
    """Return one case for every relay of every chosen peer."""
    return [
        Case(peer.name, relay.label, partial(_measure, bench, peer, relay, broker))
        for peer in PEERS
        if peer.name in bench.options.peers
        for relay in peer.relays
        if broker in relay.brokers
    ]


def tally(ids: list[str], wanted: int) -> dict[str, int]:
    """Return how many of `wanted` distinct tasks arrived, were lost, and came more than once."""
    distinct = len(set(ids))
    return {"arrived": distinct, "lost": wanted - distinct, "duplicates": len(ids) - distinct}


def _measure(bench: Bench, peer: Peer, relay: Relay, broker: str) -> dict[str, Any]:
    messages, left, conninfo = max(1, round(bench.options.messages * peer.share)), 0, ""
    queue = bench.queue(broker)
    command = [word.replace("MESSAGES", str(messages)) for word in relay.command]
    with ExitStack() as stack:
        if peer.unsettled:
            template = bench.filled(peer, broker, messages)
            conninfo = stack.enter_context(bench.databases.fresh(template))
        queue.purge()
        process, *_ = [
            stack.enter_context(bench.running(peer, command, conninfo=conninfo, broker=broker))
            for _ in range(relay.processes)
        ]
        seen = watch(process, queue.arrived, messages, bench.options.cap_seconds)
        if peer.unsettled and not seen.is_capped:
            left = await_settled(seen, process, conninfo, peer.unsettled)
    ids = queue.task_ids()
    counts = {} if seen.is_capped else tally(ids, messages)
    return {
        "messages": messages,
        "rate": seen.rate,
        "durable_rate": seen.durable_rate,
        "mib": seen.peak_mib,
        "left": left,
        "capped": seen.is_capped,
        **counts,
    }
