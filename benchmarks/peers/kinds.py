"""What a peer is, and how its relays and workers are started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MANAGE = ("-m", "django")


@dataclass(frozen=True)
class Relay:
    """One way to start what empties a peer's outbox, and how it is called in the tables.

    MESSAGES in the command stands for the number of them.
    """

    label: str
    command: tuple[str, ...]
    brokers: tuple[str, ...] = ("redis", "rabbitmq")
    processes: int = 1
    """So many of them side by side, which must not end by themselves."""


@dataclass(frozen=True)
class Worker:
    """One way to start what works a peer's job queue off, and how it is called in the tables.

    QUEUE in the command stands for the kind of queue: Independent or Laned.
    """

    label: str
    command: tuple[str, ...]
    processes: int = 1
    """So many of them side by side; a Celery worker with `-c 2` is one of them."""


@dataclass(frozen=True)
class Peer:
    """A library, or a yardstick.

    `driver` is the module that speaks the protocol, `requirements` the pinned environment (None:
    the project's own). A slow peer is given a `share` of the messages or jobs, so that a run stays
    short: its rate does not depend on it.
    """

    name: str
    driver: str
    requirements: str | None = None
    settings: str | None = None
    share: float = 1.0

    unsettled: str | None = None
    """The query that counts the messages that still wait in an outbox."""

    relays: tuple[Relay, ...] = ()
    leaves_leases: bool = False
    """Whether `fill` leaves rows that their writer still holds, so that `make_due` follows."""

    sends: dict[str, str] = field(default_factory=dict)
    """Kinds of sends for `outbox-send`, and how each is called in the tables."""

    sends_to_broker: frozenset[str] = frozenset()
    """The kinds that touch the broker, and therefore are measured with each."""

    unfinished: str | None = None
    """The query that counts the jobs that wait or run; QUEUE stands as in the workers' commands."""

    workers: Mapping[str, tuple[Worker, ...]] = field(default_factory=dict)
    """The workers of a job queue, by workload."""

    uses_broker: bool = False
    """Whether its workers get their messages from a broker."""

    @property
    def is_outbox(self) -> bool:
        return self.unsettled is not None
