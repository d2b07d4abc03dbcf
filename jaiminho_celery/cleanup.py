"""Deletes published events that are older than TIME_TO_DELETE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parviraptor_celery.clock import local_now
from parviraptor_celery.deletion import delete_old

from . import registry
from .conf import settings
from .models import Event
from .states import EventStatus

MOMENTS = {EventStatus.SENT: "sent_at", EventStatus.SKIPPED: "modified_at"}
"""The states that may be cleaned, with the column that tells since when an event is in it.

What waits or is dead is not among them. Skipped events have no index by age: they are few.
"""


def clean_all() -> int:
    """Clean every database of the outbox; return the number of deleted rows."""
    deleted: list[int] = []
    registry.for_each_alias(lambda using: deleted.append(clean(using)))
    return sum(deleted)


def clean(
    using: str,
    progress: Callable[[int], None] = lambda deleted: None,
    *,
    state: EventStatus = EventStatus.SENT,
    is_stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Delete the events that have been in ``state`` for longer than TIME_TO_DELETE.

    Deletes CLEAN_CHUNK_ROWS rows per transaction and keeps no more than their ids in memory;
    ``progress`` is called with the running total after each. Returns how many went.

    Raises:
        KeyError: events in ``state`` are never deleted by age.
    """
    return delete_old(
        _old(using, state), MOMENTS[state], settings.CLEAN_CHUNK_ROWS, progress, is_stopped
    )


def count_old(using: str, state: EventStatus = EventStatus.SENT) -> int:
    """Return how many rows ``clean`` would delete now."""
    return int(_old(using, state).count())


def _old(using: str, state: EventStatus) -> Any:
    border = local_now() - settings.TIME_TO_DELETE
    return Event.rows(using).in_state_since(state, MOMENTS[state], border)
