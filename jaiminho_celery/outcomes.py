"""How an attempt to publish an event may end."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Outcome:
    """How an attempt to publish ended."""

    log_level: ClassVar[int] = logging.INFO

    @property
    def summary(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Published(Outcome):
    log_level = logging.DEBUG


@dataclass(frozen=True)
class Unknown(Outcome):
    """Nobody knows the name yet: perhaps a newer release wrote the row."""

    log_level = logging.WARNING
    lacks: str = "no function of this process has that name"

    @property
    def summary(self) -> str:
        return f"{self.lacks}; the event waits for a worker that knows it"


@dataclass(frozen=True)
class Failed(Outcome):
    """The function raised; tried again after a back-off."""

    log_level = logging.WARNING
    error: Exception

    @property
    def summary(self) -> str:
        return f"failed with {type(self.error).__name__}, to be tried again"


@dataclass(frozen=True)
class Postponed(Outcome):
    """The other side is away as a whole: waits without counting an error."""

    error: Exception

    @property
    def summary(self) -> str:
        return "is to be tried again when the broker is back"


@dataclass(frozen=True)
class Dead(Outcome):
    """The event can't be published as it is."""

    log_level = logging.ERROR
    reason: str
    error: Exception

    @property
    def summary(self) -> str:
        return f"became a dead letter ({type(self.error).__name__})"
