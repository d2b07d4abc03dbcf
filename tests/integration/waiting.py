"""What tests of the relay share: messages that wait for it, one more round, what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Q
from django.utils import timezone

from jaiminho_celery import messages
from jaiminho_celery.models import Event
from parviraptor_celery import broker
from tests.integration.test_celery_messages import drain_queue
from tests.integration.test_message_batches import numbers, relay
from tests.integration.test_outbox import expire
from tests.supervision import embedded, processes


def rounds(using: str, count: int) -> None:
    """Let the relay go round ``count`` times, each time with everything due."""
    for _ in range(count):
        waiting = Q(status=Event.Status.WAITING)
        Event.rows(using).filter(waiting).update(run_after=timezone.now() - timedelta(seconds=1))
        broker.close_breaker()
        relay(using)


def leave(using: str, *batches: list[dict[str, Any]]) -> None:
    """Write each frozen batch as an event whose hook dies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        for batch in batches:
            messages.enqueue(batch, using)
    expire(using)


def outcomes(using: str) -> list[tuple[str, int]]:
    """Return status and counted errors of all events, the oldest first."""
    return list(Event.rows(using).order_by("id").values_list("status", "error_count"))


def copies(url: str, queue: str) -> Counter[int]:
    """Return how often each number lies in the queue, and empty it."""
    return Counter(numbers(drain_queue(url, queue)))


@contextmanager
def private_valkey(folder: Path) -> Iterator[str]:
    """Yield the URL of a Valkey that nobody else uses."""
    supervisor = processes.Supervisor()
    try:
        yield embedded.start_valkey(supervisor, folder)
    finally:
        supervisor.stop()
