"""How the run of a job can end, and what its body's error means. Values, no more."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import ClassVar

from .exceptions import (
    DeferJob,
    IgnoreJob,
    InvalidJobError,
    TemporaryJobFailure,
    UnprocessableJob,
)
from .texts import describe, describe_with_traceback

ENDS_OF_A_BODY = (SystemExit, GeneratorExit, asyncio.CancelledError)
"""What code in a body may raise, by ``sys.exit()`` for one, that is no ``Exception``."""

CLOSED = "process() closed the connection in which its queue is atomic; what it wrote was undone"
LEFT_OPEN = "process() left a transaction open; what it wrote there was rolled back"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    log_level: ClassVar[int] = logging.INFO
    message: str = ""


@dataclass(frozen=True)
class Processed(Outcome):
    log_level = logging.DEBUG


@dataclass(frozen=True)
class Ignored(Outcome):
    pass


@dataclass(frozen=True)
class Deferred(Outcome):
    pass


@dataclass(frozen=True)
class NotProcessable(Outcome):
    pass


@dataclass(frozen=True)
class TemporarilyFailed(Outcome):
    log_level = logging.WARNING
    retry_after: float | None = None


@dataclass(frozen=True)
class Superseded(Outcome):
    """It would wait again, but a newer job with its unique key waits already."""


@dataclass(frozen=True)
class Failed(Outcome):
    log_level = logging.ERROR
    details: str = ""


def is_of_the_worker(error: BaseException) -> bool:
    """Return whether ``error`` ends the worker, and only happened to reach a body.

    Celery has exceptions of its own for that, derived from SystemExit. The processes of its pool
    turn a signal into ``sys.exit(signal - 256)`` (billiard, ``_shutdown_cleanup``).
    """
    if type(error) not in ENDS_OF_A_BODY:
        return True
    code = error.code if isinstance(error, SystemExit) else None
    return isinstance(code, int) and -256 < code <= -192


def outcome_of(error: BaseException) -> Outcome:
    """Return what a body that raised ``error`` comes to."""
    match error:
        case TemporaryJobFailure(retry_after=seconds):
            return TemporarilyFailed(describe(error), seconds)
        case DeferJob():
            return Deferred(describe(error))
        case IgnoreJob():
            return Ignored(describe(error))
        case UnprocessableJob():
            return NotProcessable(describe(error))
        case InvalidJobError():
            return Failed(describe(error))
        case Exception():
            return Failed(describe(error), describe_with_traceback(error))
    return Failed(describe(error, with_type=True), describe_with_traceback(error))
