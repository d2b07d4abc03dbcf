"""What these tests share: a sender, a broker that is read, and a gate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from tests.integration.test_celery_messages import drain_queue, make_app

ON_SERVERS = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
PATIENCE = 20.0
Send = Callable[[int], Any]


def sender(using: str, url: str, queue: str) -> Send:
    app = make_app(OutboxCelery, url, queue)
    app.outbox_using = using
    return lambda number: app.tasks["wire.add"].delay(number, 0)


def numbers(url: str, queue: str) -> list[int]:
    return sorted(json.loads(body)[0][0] for body, _, _ in drain_queue(url, queue))


def statuses(using: str) -> list[str]:
    return list(Event.rows(using).order_by("id").values_list("status", flat=True))


@contextmanager
def noting(signal: Any) -> Iterator[list[int]]:
    """Yield a list of the ids of the events that ``signal`` is sent with."""
    found: list[int] = []

    def note(event_id: int, **_: Any) -> None:
        found.append(event_id)

    signal.connect(note)
    try:
        yield found
    finally:
        signal.disconnect(note)
