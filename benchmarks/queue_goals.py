"""What the project wants its job queues to reach, as ratios within one run."""

from __future__ import annotations

from collections.abc import Iterable

from . import peers
from .goals import TWO, Goal

QUEUES = frozenset({"parviraptor", "procrastinate"})


def _of_queues(
    title: str,
    workload: str,
    figure: str,
    others: Iterable[str],
    wanted: float,
    ours: str,
    *,
    theirs: str | None = None,
    at_least: bool = True,
) -> Goal:
    return Goal(
        title,
        workload,
        figure,
        frozenset(others),
        wanted,
        at_least=at_least,
        ours=ours,
        theirs=theirs,
        our_name=peers.OUR_QUEUES,
    )


QUEUE_GOALS: tuple[Goal, ...] = (
    *(
        _of_queues(
            "best plain Celery",
            f"queue-independent-{broker}",
            "durable_rate",
            {"plain-celery"},
            wanted,
            ours,
        )
        for broker, wanted in (("redis", 2), ("rabbitmq", 1))
        for ours in ("-c 1", f"-c 2, {TWO}")
    ),
    _of_queues(
        "procrastinate", "queue-lanes", "durable_rate", {"procrastinate"}, 4, f"-c 2, {TWO}"
    ),
    _of_queues(
        "a bare loop",
        "queue-one-lane",
        "durable_rate",
        {"psycopg"},
        1,
        "-c 1",
    ),
    _of_queues(
        "nearest queue",
        "queue-one-lane",
        "durable_rate",
        QUEUES,
        5,
        "-c 1",
    ),
    *(
        _of_queues(
            "a bare bulk_create",
            "queue-enqueue",
            "us_a_row",
            {"django"},
            1.2,
            f"enqueue_many, {ours}",
            theirs=f"bulk_create, table of {theirs} jobs",
            at_least=False,
        )
        for ours, theirs in (("independent", "independent"), ("100 lanes", "laned"))
    ),
    *(
        _of_queues(
            "plain delay()",
            "queue-latency",
            "wait_p50",
            {"plain-celery"},
            1.5,
            f"{kind}, {broker}",
            theirs=f"delay(), {broker}",
            at_least=False,
        )
        for kind in ("independent", "a lane each")
        for broker in ("Redis", "RabbitMQ")
    ),
    *(
        _of_queues(
            "the same, few wait",
            "queue-backlog",
            "rate",
            {peers.OUR_QUEUES},
            0.9,
            f"{kind}, many wait",
            theirs=f"{kind}, few wait",
        )
        for kind in ("one lane", "independent")
    ),
    *(
        _of_queues(
            "the same, none blocked",
            "queue-backlog",
            "rate",
            {peers.OUR_QUEUES},
            0.9,
            f"5,000 runnable behind {rows} blocked",
            theirs="5,000 runnable behind 0 blocked",
        )
        for rows in ("5,000", "100,000")
    ),
)
