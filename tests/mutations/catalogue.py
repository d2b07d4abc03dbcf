"""All mutations, theme by theme."""

from __future__ import annotations

from . import (
    deaths,
    hard_rows,
    hostile,
    lanes,
    machines,
    messages,
    outbox,
    pages,
    queues,
    rigs,
    sessions,
    wakes,
)

MUTATIONS = [
    *hard_rows.MUTATIONS,
    *lanes.MUTATIONS,
    *queues.MUTATIONS,
    *sessions.MUTATIONS,
    *wakes.MUTATIONS,
    *pages.MUTATIONS,
    *outbox.MUTATIONS,
    *messages.MUTATIONS,
    *hostile.MUTATIONS,
    *rigs.MUTATIONS,
    *machines.MUTATIONS,
    *deaths.MUTATIONS,
]
