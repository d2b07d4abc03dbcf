"""What beat runs for the queues."""

from __future__ import annotations

from typing import Any

from .conf import settings


def entry(task: str, every_seconds: float, **kwargs: Any) -> dict[str, Any]:
    """Return one entry of ``beat_schedule``; a tick that nobody took up in time expires."""
    return {
        "task": task,
        "schedule": float(every_seconds),
        "kwargs": kwargs,
        "options": {"expires": max(every_seconds, 1.0)},
    }


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return the entries for ``app.conf.beat_schedule``.

    >>> app.conf.beat_schedule = {**parviraptor_celery.schedule.beat_schedule(), ...}

    django-celery-beat's ``DatabaseScheduler`` takes them up as well.
    """
    return {
        "parviraptor_celery.dispatch_jobs": entry(
            "parviraptor_celery.dispatch_jobs",
            settings.DISPATCH_INTERVAL_SECONDS,
            asked_by="beat",
        ),
        "parviraptor_celery.clean_jobs": entry(
            "parviraptor_celery.clean_jobs", settings.CLEAN_INTERVAL_SECONDS
        ),
    }
