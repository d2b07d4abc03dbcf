"""What beat runs for the outbox."""

from __future__ import annotations

from typing import Any

from parviraptor_celery.schedule import entry

from .conf import settings


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return the entries for ``app.conf.beat_schedule``.

    django-celery-beat's ``DatabaseScheduler`` takes them up as well.
    """
    relay, clean = "jaiminho_celery.relay_events", "jaiminho_celery.clean_events"
    return {
        relay: entry(relay, settings.RELAY_INTERVAL_SECONDS),
        clean: entry(clean, settings.CLEAN_INTERVAL_SECONDS),
    }
