"""Ports for servers that are stopped and started again in the midst of a test."""

from __future__ import annotations

import random
import socket

# Below those that systems give to outgoing connections: nobody takes one while its server is away.
LASTING_PORTS = range(20_000, 32_000)


def lasting_port() -> int:
    """Return a port of 127.0.0.1 that stays free while its server is away; RuntimeError if none."""
    for port in random.SystemRandom().sample(LASTING_PORTS, k=100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"there is no free port in {LASTING_PORTS}")
