"""Back-off, as pure functions: same arguments, same answer."""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable
from datetime import timedelta

EXPONENT_CAP = 5
LONGEST_SECONDS = 365 * 24 * 3600.0


@enum.unique
class BackoffStrategy(enum.Enum):
    """How the pauses of a queue grow from one temporary failure to the next."""

    EXPONENTIAL = enum.auto()
    """``step ** n`` minutes after the n-th failure (counted from 0), n capped at 5."""

    CONSTANT = enum.auto()
    """``step`` minutes, always."""


def job_delay(
    strategy: BackoffStrategy,
    step_minutes: float,
    errors_before: int,
    *,
    cap_minutes: float | None = None,
    jitter: float = 0,
    uniform: Callable[[float, float], float] = random.uniform,
) -> timedelta:
    """Return the pause after a temporary failure that ``errors_before`` others preceded.

    It is ``min(pause, cap) * (1 + uniform(0, jitter))``: jitter lengthens the capped pause, by a
    random part of up to this share of it. Between zero and a year in any case.

    >>> [job_delay(BackoffStrategy.EXPONENTIAL, 2, n).seconds // 60 for n in range(7)]
    [1, 2, 4, 8, 16, 32, 32]
    >>> longest = lambda low, high: high
    >>> job_delay(BackoffStrategy.CONSTANT, 60, 0, cap_minutes=10, jitter=0.2, uniform=longest)
    datetime.timedelta(seconds=720)
    """
    match strategy:
        case BackoffStrategy.CONSTANT:
            minutes = float(step_minutes)
        case BackoffStrategy.EXPONENTIAL:
            step = min(float(step_minutes), LONGEST_SECONDS)  # whose power is still a float
            minutes = step ** min(errors_before, EXPONENT_CAP)
    if cap_minutes is not None:
        minutes = min(minutes, cap_minutes)
    if jitter:
        minutes *= 1 + uniform(0, jitter)
    return bounded(minutes * 60)


def bounded(seconds: float) -> timedelta:
    """Return ``seconds`` as a pause that a date can be moved by: between zero and a year."""
    if math.isnan(seconds):
        return timedelta(0)
    return timedelta(seconds=min(max(seconds, 0.0), LONGEST_SECONDS))


def full_jitter(
    errors_before: int,
    *,
    base_seconds: float,
    cap_seconds: float,
    uniform: random.Random | None = None,
) -> timedelta:
    """Return a random pause between zero and the capped exponential.

    The random part spreads the retries of many rows that failed together; see
    "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), variant "full jitter".
    """
    ceiling = min(cap_seconds, base_seconds * 2 ** min(errors_before, 32))
    source = uniform or random
    return timedelta(seconds=source.uniform(0, ceiling))
