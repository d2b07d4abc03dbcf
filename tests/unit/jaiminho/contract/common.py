"""What these tests share."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.utils import timezone

from jaiminho_celery.models import Event
from jaiminho_celery.signing import sign

MINUTE = timedelta(minutes=1)


def relay(*arguments: str) -> None:
    """Deliver what is due, as a person would."""
    call_command("events_relay", *arguments, stdout=StringIO())


def let_be_due() -> None:
    """Let back-offs be over, and the leases of whoever holds an event."""
    past = timezone.now() - MINUTE
    Event.objects.filter(sent_at=None).update(run_after=past)
    Event.objects.exclude(lease_until=None).update(lease_until=past)


def only() -> Any:
    """Return the one event that there is."""
    return Event.objects.get()


def name_it(name: str) -> Any:
    """Let the only event be one that was written for a function of that name."""
    event = only()
    event.name = name
    event.signature = sign(event)
    event.save(update_fields=["name", "signature"])
    return event


def payloads(outbox: Any) -> list[Any]:
    """Return the first argument of every call that was made, in order."""
    return [args[0] for _, args, _ in outbox.calls]
