"""How long an event that failed waits, and when it has failed often enough."""

from __future__ import annotations

from datetime import timedelta

from parviraptor_celery.backoff import full_jitter

from .conf import settings


def backoff(error_count: int) -> timedelta:
    """Return how long an event waits after ``error_count`` failures and one more."""
    return full_jitter(
        error_count,
        base_seconds=settings.BACKOFF_BASE_SECONDS,
        cap_seconds=settings.BACKOFF_CAP_SECONDS,
    )


def is_last_attempt(error_count: int) -> bool:
    """Return whether one failure more than ``error_count`` reaches MAX_ATTEMPTS."""
    most = settings.MAX_ATTEMPTS
    return most is not None and error_count + 1 >= most


def given_up(error_count: int, last: str) -> str:
    """Return the reason of a dead letter that failed once more than ``error_count``."""
    attempts = "1 failed attempt" if error_count == 0 else f"{error_count + 1} failed attempts"
    return f"given up after {attempts} (MAX_ATTEMPTS): {last}"
