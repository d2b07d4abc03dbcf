"""What can be known to be wrong with the class attributes of a queue."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from typing import Any

from django.core.checks import CheckMessage, Error

from .backoff import BackoffStrategy
from .conf import boolean
from .jobs import AbstractJob
from .states import FailurePolicy

Rule = Callable[[Any], str | None]

MOST_DAYS = 36_500
MOST_MINUTES = MOST_DAYS * 24 * 60


def number(most: float = math.inf, *, optional: bool = False) -> Rule:
    """Return a rule for numbers from zero to ``most``, and for None where that is allowed."""

    def problem(value: Any) -> str | None:
        if optional and value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and 0 <= value <= most:
            return None
        span = "zero or above" if most == math.inf else f"from zero to {most:,}"
        return f"must be a number, {span}{', or None' if optional else ''}"

    return problem


def member(kind: type[enum.Enum]) -> Rule:
    """Return a rule for the members of an enum."""
    names = " or ".join(f"{kind.__name__}.{one.name}" for one in kind)
    return lambda value: None if isinstance(value, kind) else f"must be {names}"


RULES: dict[str, Rule] = {
    "BACKOFF_STRATEGY": member(BackoffStrategy),
    "BACKOFF_STEP_MINUTES": number(),
    "BACKOFF_CAP_MINUTES": number(optional=True),
    "BACKOFF_JITTER": number(1),
    "TEMPORARY_FAILURE_THRESHOLD": number(),
    "DEFERRED_RETRY_THRESHOLD": number(),
    "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS": number(MOST_DAYS, optional=True),
    "MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN": number(MOST_MINUTES),
    "MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN": number(MOST_MINUTES),
    "FAILURE_POLICY": member(FailurePolicy),
    "SQUASH_WAITING_JOBS": boolean,
    "STRICT_ORDER": boolean,
    "atomic": boolean,
}
"""What each attribute must be."""


def check_attributes(queue: type[AbstractJob]) -> Iterator[CheckMessage]:
    """Yield an error for each attribute of ``queue`` that can't work."""
    for name, rule in RULES.items():
        value = getattr(queue, name)
        if problem := rule(value):
            default = getattr(AbstractJob, name)
            yield Error(
                f"{queue._meta.label}.{name} {problem}, not {value!r}.",
                hint=f"Without the attribute its default holds: {default}.",
                obj=queue,
                id="parviraptor_celery.E011",
            )
    if queue.dependent_fields is None and queue.SQUASH_WAITING_JOBS is True:
        yield Error(
            f"{queue._meta.label} has SQUASH_WAITING_JOBS = True, but its jobs are independent of "
            "each other: none can stand for the others.",
            hint="Name the dependent fields (make_base_class(dependent_fields=[…])), or give the "
            "jobs a unique_key.",
            obj=queue,
            id="parviraptor_celery.E010",
        )
