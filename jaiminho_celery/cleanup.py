"""Deletes published events that are older than TIME_TO_DELETE."""

from __future__ import annotations

from collections.abc import Callable

from django.utils import timezone

from . import registry
from .conf import settings
from .models import Event


def clean_all(progress: Callable[[int], None] = lambda deleted: None) -> int:
    """Clean every database of the outbox; return the number of deleted rows."""
    deleted: list[int] = []
    registry.for_each_alias(lambda using: deleted.append(clean(using, progress)))
    return sum(deleted)


def clean(using: str, progress: Callable[[int], None] = lambda deleted: None) -> int:
    """Delete published events older than TIME_TO_DELETE; return how many.

    Deletes CLEAN_CHUNK_ROWS rows per transaction and keeps no more than their ids in memory.
    Events that wait, and dead letters, are never deleted.
    """
    old = Event.rows(using).sent_before(timezone.now() - settings.TIME_TO_DELETE)
    by_age = old.order_by("sent_at").values_list("pk", flat=True)
    deleted = 0
    while ids := list(by_age[: settings.CLEAN_CHUNK_ROWS]):
        old.filter(pk__in=ids).delete()
        deleted += len(ids)
        progress(deleted)
    return deleted
