"""Nudges: right after a commit the relay hears which lane has something to publish."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction

from parviraptor_celery import broker
from parviraptor_celery.conf import settings
from parviraptor_celery.kicks import KickAfterCommit, spread

if TYPE_CHECKING:
    from .models import Event

RELAY = "jaiminho_celery.relay_events"

_asked_for: dict[str, float] = {}
"""When the relay was last asked to come, by database (monotonic seconds)."""


def on_commit(event: Event, using: str) -> None:
    """Nudge the relay about ``event`` once its transaction has committed."""
    KickAfterCommit.register(event, using, lambda lanes, _: send(using, lanes or [""]))


def later(using: str, pause: timedelta) -> None:
    """Let the relay look at the unordered events of ``using`` in ``pause``.

    A process asks once for what fails in a row: earlier requests that are still to come will do.
    """
    seconds = min(pause.total_seconds(), settings.RETRY_COUNTDOWN_CAP_SECONDS)
    due, now = time.monotonic() + seconds, time.monotonic()
    if now < _asked_for.get(using, 0.0) <= due:
        return
    if broker.kick(RELAY, countdown=seconds, using=using):
        _asked_for[using] = due


def lanes_on_commit(using: str, lanes: set[str]) -> None:
    """Nudge the relay about ``lanes`` once the transaction has committed."""
    transaction.on_commit(lambda: send(using, sorted(lanes)), using=using, robust=True)


def pool_on_commit(using: str) -> None:
    """Nudge the relay about the events without order once the transaction has committed."""
    transaction.on_commit(lambda: _relay_pool(using), using=using, robust=True)


def send(using: str, lanes: list[str]) -> bool:
    """Publish nudges for ``lanes``; a broker that is away costs one try, the tick comes anyway."""
    return all(broker.kick(RELAY, using=using, lanes=part) for part in spread(lanes))


def _relay_pool(using: str) -> None:
    broker.kick(RELAY, using=using)
