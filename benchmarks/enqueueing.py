"""queue-enqueue: what it costs to enqueue jobs, many at once and one by one."""

from __future__ import annotations

from functools import partial
from typing import Any

from . import peers
from .bench import Bench
from .cases import Case
from .peers import Peer
from .send import TITLES

DJANGO = "django"
FACTOR = 2
"""Bulks are larger than what workers are given to work off."""

BULKS = {
    peers.OUR_QUEUES: {
        "enqueue_many, independent": ("Independent", "enqueue_many"),
        "enqueue_many, 100 lanes": ("Laned", "enqueue_many"),
        "objects.bulk_create, 100 lanes": ("Laned", "bulk_create"),
    },
    DJANGO: {
        "bulk_create, table of independent jobs": ("IndependentTable", "bulk_create"),
        "bulk_create, table of laned jobs": ("LanedTable", "bulk_create"),
        "bulk_create, the user's columns only": ("Plain", "bulk_create"),
    },
}
SINGLES = {
    peers.OUR_QUEUES: {
        "enqueue, independent": ("Independent", "enqueue"),
        "enqueue, a lane each": ("Laned", "enqueue"),
    },
    DJANGO: {
        "create, table of laned jobs": ("LanedTable", "create"),
        "create, the user's columns only": ("Plain", "create"),
    },
}


def cases(bench: Bench) -> list[Case]:
    """Return bulks (ours kick by the first broker that is there) and single ones with each."""
    there = [broker for broker in TITLES if not bench.missing(broker)]
    found = []
    for peer in [peer for peer in peers.PEERS if peer.name in bench.options.peers]:
        for label, (model, way) in BULKS.get(peer.name, {}).items():
            arguments = {"model": model, "way": way, "jobs": FACTOR * bench.options.jobs}
            measure = partial(_measure, bench, peer, "bulk", arguments, *there[:1])
            found.append(Case(peer.name, label, measure))
        for label, (model, way) in SINGLES.get(peer.name, {}).items():
            arguments = {"model": model, "way": way, "jobs": bench.options.sends}
            for broker in there if peer.uses_broker else there[:1]:
                text = f"{label}, {TITLES[broker]}" if peer.uses_broker else label
                measure = partial(_measure, bench, peer, "single", arguments, broker)
                found.append(Case(peer.name, text, measure))
    return found


def _measure(
    bench: Bench, peer: Peer, verb: str, arguments: dict[str, Any], broker: str = "redis"
) -> dict[str, Any]:
    queue = bench.queue(broker)
    queue.purge()
    with bench.databases.fresh(bench.migrated(peer)) as conninfo:
        result = bench.call(peer, verb, arguments, conninfo=conninfo, broker_url=queue.url)
    kicks = queue.arrived()
    queue.purge()
    return {**result, **({"kicks": kicks} if peer.uses_broker else {})}
