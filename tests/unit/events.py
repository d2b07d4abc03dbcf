"""What many tests of the outbox say: let the relay work, look at the events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from jaiminho_celery import sweep
from jaiminho_celery.models import Event
from jaiminho_celery.states import EventStatus
from parviraptor_celery.drains import Budget


def relay(stream: str | None = None) -> int:
    """Publish everything that is due, as `events_relay` does; return the number of tries."""
    return sweep.relay_here("default", Budget.endless(), stream)


def relay_one() -> int:
    """Try one event at most."""
    return sweep.relay_here("default", Budget(rows=1, seconds=float("inf")))


def let_be_due() -> None:
    """Let the pauses of all events be over, and free those whose hook never ran."""
    Event.rows("default").update(run_after=timezone.now() - timedelta(seconds=1))
    hanging = Event.rows("default").filter(status=EventStatus.PUBLISHING)
    hanging.update(status=EventStatus.WAITING, lease_until=None, running_lane=None)


def only() -> Any:
    """Return the one event that there is."""
    return Event.rows("default").get()


def statuses() -> list[str]:
    """Return the statuses of all events in the order of their ids."""
    return list(Event.rows("default").order_by("id").values_list("status", flat=True))
