"""The outboxes, and the yardsticks beside them."""

from __future__ import annotations

from .kinds import MANAGE, Peer, Relay

PUBLISH = ("-m", "benchmarks.drivers.kombu_producer", "publish")

OURS = "jaiminho_celery"

OUTBOX_PEERS = (
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
