"""Who is measured: each peer's environment, driver, relays, workers. README.md: how to add one."""

from __future__ import annotations

from .job_queues import OUR_QUEUES, QUEUE_PEERS
from .kinds import Peer, Relay, Worker
from .outboxes import OURS, OUTBOX_PEERS

__all__ = ["OURS", "OUR_QUEUES", "PEERS", "Peer", "Relay", "Worker", "named"]

PEERS = (*OUTBOX_PEERS, *QUEUE_PEERS)


def named(name: str) -> Peer:
    return next(peer for peer in PEERS if peer.name == name)
