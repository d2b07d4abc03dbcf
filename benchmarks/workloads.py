"""The workloads: what each is called, what it needs, and the cases it measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import backlog, drains, enqueueing, growth, latency, relay, send
from .bench import Bench
from .cases import Case


@dataclass(frozen=True)
class Workload:
    title: str
    cases: Callable[[Bench], list[Case]]
    brokers: tuple[str, ...] = ()
    """The brokers without which it is left out."""

    partly: tuple[str, ...] = ()
    """The brokers without which some of its cases are left out."""

    is_default: bool = True


WORKLOADS = {
    "outbox-relay-redis": Workload(
        "Relay of waiting messages to Redis",
        lambda bench: relay.cases(bench, "redis"),
        brokers=("redis",),
    ),
    "outbox-relay-rabbitmq": Workload(
        "Relay of waiting messages to RabbitMQ",
        lambda bench: relay.cases(bench, "rabbitmq"),
        brokers=("rabbitmq",),
    ),
    "outbox-send": Workload(
        "What a send adds to a transaction", send.cases, partly=("redis", "rabbitmq")
    ),
    "outbox-growth": Workload(
        "Relay beside many other rows", growth.relay_cases, brokers=("redis",), is_default=False
    ),
    "outbox-clean": Workload("Cleaning", growth.clean_cases, is_default=False),
    "queue-independent-redis": Workload(
        "Independent jobs, kicks by Redis",
        lambda bench: drains.independent_cases(bench, "redis"),
        brokers=("redis",),
    ),
    "queue-independent-rabbitmq": Workload(
        "Independent jobs, kicks by RabbitMQ",
        lambda bench: drains.independent_cases(bench, "rabbitmq"),
        brokers=("rabbitmq",),
    ),
    "queue-lanes": Workload("Jobs of a hundred lanes", drains.lanes_cases, brokers=("redis",)),
    "queue-one-lane": Workload("Jobs of one lane", drains.one_lane_cases, brokers=("redis",)),
    "queue-enqueue": Workload(
        "What enqueuing costs", enqueueing.cases, partly=("redis", "rabbitmq")
    ),
    "queue-latency": Workload(
        "From enqueuing to the start of the body", latency.cases, partly=("redis", "rabbitmq")
    ),
    "queue-backlog": Workload(
        "Jobs among many that wait", backlog.cases, brokers=("redis",), is_default=False
    ),
}
