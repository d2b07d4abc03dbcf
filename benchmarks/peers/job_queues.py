"""The job queues, and the yardsticks beside them."""

from __future__ import annotations

import json

from .kinds import MANAGE, Peer, Worker

OUR_QUEUES = "parviraptor_celery"
PROCRASTINATE = ("-m", "benchmarks.drivers.procrastinate_queue", "work")

# A worker asks nobody who else is there: it starts faster, and leaves nothing on a shared broker.
ALONE = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING")


def celery(app: str, children: int, *more: str) -> tuple[str, ...]:
    """Return the command of a prefork worker with that many children."""
    return ("-m", "celery", "-A", app, "worker", "-c", str(children), *ALONE, *more)


def ours(label: str, children: int) -> Worker:
    return Worker(label, celery("benchmarks.drivers.job_queue", children))


def plain(label: str, children: int, prefetch: int, processes: int = 1) -> Worker:
    command = celery(
        "benchmarks.drivers.plain_celery", children, "--prefetch-multiplier", str(prefetch)
    )
    return Worker(label, command, processes)


def procrastinate(label: str, processes: int = 1, concurrency: int = 1) -> Worker:
    return Worker(label, (*PROCRASTINATE, json.dumps({"concurrency": concurrency})), processes)


PARVIRAPTOR = (*MANAGE, "process_queue", "parviraptor_queue", "QUEUE")

QUEUE_PEERS = (
    Peer(
        OUR_QUEUES,
        "benchmarks.drivers.job_queue",
        settings="benchmarks.drivers.job_queue.settings",
        uses_broker=True,
        unfinished="SELECT count(*) FROM job_queue_QUEUE WHERE status IN ('NEW', 'PROCESSING')",
        workers={
            "queue-independent": (ours("-c 1", 1), ours("-c 2, two processes", 2)),
            "queue-lanes": (ours("-c 2, two processes", 2),),
            "queue-one-lane": (ours("-c 1", 1),),
            "queue-latency": (ours("-c 1", 1),),
            "queue-backlog": (ours("-c 1", 1), ours("-c 2", 2)),
        },
    ),
    Peer(
        "plain-celery",
        "benchmarks.drivers.plain_celery",
        uses_broker=True,
        workers={
            "queue-independent": (
                plain("-c 1, prefetch 4", 1, 4),
                plain("-c 1, prefetch 64", 1, 64),
                plain("-c 2, prefetch 64, two processes", 2, 64),
                plain("two workers of -c 1, prefetch 64, two processes", 1, 64, processes=2),
            ),
            "queue-latency": (plain("delay()", 1, 4),),
        },
    ),
    Peer("psycopg", "benchmarks.drivers.bare_loop"),
    Peer(
        "django",
        "benchmarks.drivers.job_queue",
        settings="benchmarks.drivers.job_queue.settings",
    ),
    Peer(
        "parviraptor",
        "benchmarks.drivers.parviraptor",
        requirements="parviraptor",
        settings="benchmarks.drivers.parviraptor.settings",
        share=0.2,
        unfinished="SELECT count(*) FROM parviraptor_queue_QUEUE"
        " WHERE status IN ('NEW', 'PROCESSING')",
        workers={
            "queue-independent": (
                Worker("process_queue", PARVIRAPTOR),
                Worker("process_queue, two processes", PARVIRAPTOR, 2),
            ),
            "queue-lanes": (Worker("process_queue, two processes", PARVIRAPTOR, 2),),
            "queue-one-lane": (Worker("process_queue", PARVIRAPTOR),),
        },
    ),
    Peer(
        "procrastinate",
        "benchmarks.drivers.procrastinate_queue",
        requirements="procrastinate",
        share=0.2,
        unfinished="SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
        workers={
            "queue-independent": (
                procrastinate("one worker"),
                procrastinate("one worker, concurrency 10", concurrency=10),
                procrastinate("one worker each, two processes", processes=2),
            ),
            "queue-lanes": (procrastinate("a lock per lane, two processes", processes=2),),
            "queue-one-lane": (procrastinate("one lock"),),
            "queue-latency": (procrastinate("one worker"),),
        },
    ),
)
