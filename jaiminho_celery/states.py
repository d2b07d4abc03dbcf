"""The states of an event, and every transition between them."""

from __future__ import annotations

from django.db import models


class EventStatus(models.TextChoices):
    """Where an event stands."""

    WAITING = "WAITING"
    """To be published by the relay, when it is due and at the head of its lane."""

    PUBLISHING = "PUBLISHING"
    """Leased to a hook or a relay until ``lease_until``."""

    SENT = "SENT"
    """Published; kept until the cleaner finds it too old."""

    DEAD = "DEAD"
    """A dead letter: not retried by itself; holds its lane until a person decides."""

    SKIPPED = "SKIPPED"
    """A dead letter that a person set aside; its lane goes on."""


_S = EventStatus

TRANSITIONS: dict[EventStatus, frozenset[EventStatus]] = {
    _S.WAITING: frozenset({_S.PUBLISHING, _S.SKIPPED}),
    _S.PUBLISHING: frozenset({_S.SENT, _S.WAITING, _S.DEAD}),
    _S.DEAD: frozenset({_S.WAITING, _S.SKIPPED}),
    _S.SENT: frozenset(),
    _S.SKIPPED: frozenset({_S.WAITING}),
}
"""From each state to those that may follow. A published event may also be deleted at once."""
