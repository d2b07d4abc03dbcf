"""Nudges: right after a commit the relay hears which lane has something to publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction

from parviraptor_celery import broker
from parviraptor_celery.kicks import KickAfterCommit, spread

if TYPE_CHECKING:
    from .models import Event

RELAY = "jaiminho_celery.relay_events"


def on_commit(event: Event, using: str) -> None:
    """Nudge the relay about ``event`` once its transaction has committed."""
    KickAfterCommit.register(event, using, lambda: send(using, [event.lane or ""]))


def lanes_on_commit(using: str, lanes: set[str]) -> None:
    """Nudge the relay about ``lanes`` once the transaction has committed."""
    transaction.on_commit(lambda: send(using, sorted(lanes)), using=using, robust=True)


def sweep_on_commit(using: str) -> None:
    """Ask the relay to look at everything once the transaction has committed.

    For events without order, of which no nudge speaks.
    """
    transaction.on_commit(_sweep, using=using, robust=True)


def _sweep() -> None:
    broker.kick(RELAY, force=True)


def send(using: str, lanes: list[str]) -> None:
    """Publish nudges for ``lanes``; a broker that is away costs one try, the tick comes anyway."""
    for part in spread(lanes):
        if not broker.kick(RELAY, using=using, lanes=part):
            return
