"""Who is measured: each peer's environment, driver and relay. README.md tells how to add one."""

from __future__ import annotations

from dataclasses import dataclass, field

MANAGE = ("-m", "django")
PUBLISH = ("-m", "benchmarks.drivers.kombu_producer", "publish")


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
class Peer:
    """A library, or a yardstick.

    `driver` is the module that speaks the protocol, `requirements` the pinned environment (None:
    the project's own), `unsettled` counts the rows that still wait. A slow peer is given a
    `share` of the messages, so that a run stays short: its rate does not depend on it.
    """

    name: str
    driver: str
    requirements: str | None = None
    settings: str | None = None
    unsettled: str | None = None
    relays: tuple[Relay, ...] = ()
    share: float = 1.0
    leaves_leases: bool = False
    """Whether `fill` leaves rows that their writer still holds, so that `make_due` follows."""

    sends: dict[str, str] = field(default_factory=dict)
    """Kinds of sends for `outbox-send`, and how each is called in the tables."""

    sends_to_broker: frozenset[str] = frozenset()
    """The kinds that touch the broker, and therefore are measured with each."""

    @property
    def is_outbox(self) -> bool:
        return self.unsettled is not None


OURS = "jaiminho_celery"

PEERS = (
    Peer(
        OURS,
        "benchmarks.drivers.library",
        settings="benchmarks.drivers.library.settings",
        leaves_leases=True,
        # Each part by an index: among millions of other rows a scan would take a second.
        unsettled="SELECT"
        " (SELECT count(*) FROM jaiminho_celery_event WHERE status = 'PUBLISHING')"
        " + (SELECT count(*) FROM jaiminho_celery_event"
        " WHERE status = 'WAITING' AND lane IS NULL AND run_after <= now())"
        " + (SELECT count(*) FROM jaiminho_celery_event"
        " WHERE status = 'WAITING' AND lane IS NOT NULL)",
        relays=(
            Relay("events_relay", (*MANAGE, "events_relay")),
            Relay(
                "events_relay, two processes",
                (*MANAGE, "events_relay", "--run-in-loop"),
                processes=2,
            ),
        ),
        sends={
            "message": "OutboxCelery",
            "function": "function, publish-on-commit",
            "in-order": "function, keep-order",
        },
        sends_to_broker=frozenset({"message"}),
    ),
    Peer(
        "kombu",
        "benchmarks.drivers.kombu_producer",
        relays=(
            Relay(
                "one by one",
                (*PUBLISH, '{"messages": MESSAGES, "confirmed": false}'),
                brokers=("redis",),
            ),
            Relay(
                "one by one, each confirmed",
                (*PUBLISH, '{"messages": MESSAGES, "confirmed": true}'),
                brokers=("rabbitmq",),
            ),
        ),
    ),
    Peer(
        "django-celery-outbox",
        "benchmarks.drivers.django_celery_outbox",
        requirements="django-celery-outbox",
        settings="benchmarks.drivers.django_celery_outbox.settings",
        unsettled="SELECT count(*) FROM celery_outbox",
        relays=(
            Relay("metrics off", (*MANAGE, "celery_outbox_relay")),
            Relay(
                "metrics off, --batch-size 1000",
                (*MANAGE, "celery_outbox_relay", "--batch-size", "1000"),
            ),
            Relay(
                "metrics off, --batch-size 1000, two processes",
                (*MANAGE, "celery_outbox_relay", "--batch-size", "1000"),
                processes=2,
            ),
        ),
        sends={"message": "OutboxCelery"},
    ),
    Peer(
        "django-jaiminho",
        "benchmarks.drivers.django_jaiminho",
        requirements="django-jaiminho",
        settings="benchmarks.drivers.django_jaiminho.settings",
        unsettled="SELECT count(*) FROM jaiminho_event WHERE sent_at IS NULL",
        relays=(Relay("keep-order", (*MANAGE, "events_relay")),),
        share=0.2,
        sends={"function": "function, keep-order"},
    ),
    Peer(
        "celery",
        "benchmarks.drivers.celery_after_commit",
        settings="benchmarks.drivers.celery_after_commit.settings",
        sends={"message": "delay() after the commit, nothing durable"},
        sends_to_broker=frozenset({"message"}),
    ),
)


def named(name: str) -> Peer:
    return next(peer for peer in PEERS if peer.name == name)
