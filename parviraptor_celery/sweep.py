"""Finds what no kick speaks of any more: leases that ran out, lanes whose kick was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import router

from . import kicks, registry, signals
from .conf import settings
from .database import in_transaction
from .models import AbstractJob, Tick
from .states import CLAIMABLE, JobStatus

RESCUE_ROWS = 100
TICK = "dispatch"
WORKER_DIED = "the worker died {} times while it ran this job"


def sweep_all(*, force: bool = False) -> bool:
    """Rescue and kick every queue; False when somebody did so within half an interval."""
    alias = router.db_for_write(Tick)
    is_due = Tick.objects.take(TICK, settings.DISPATCH_INTERVAL_SECONDS / 2, using=alias)
    if not (is_due or force):
        return False
    for queue in registry.all_queues():
        for using in registry.aliases_of(queue):
            rescue(queue, using)
            kick_waiting(queue, using)
    return True


def rescue(queue: type[AbstractJob], using: str) -> int:
    """Give back the jobs whose lease ran out; return how many.

    A job whose body had begun counts a worker death, and fails after ``MAX_WORKER_DEATHS`` of
    them; one that was only claimed pays nothing.
    """
    return rescue_expired(queue.rows(using), give_back, _announce)


def rescue_expired(
    rows: Any, give_back: Callable[[Any], bool], announce: Callable[[Any], None]
) -> int:
    """Call ``give_back`` for every row whose lease ran out; return how many there were.

    A row that its own body keeps locked is left alone: whoever runs it is alive.
    """

    def chunk() -> list[Any]:
        expired = list(rows.expired().unlocked()[:RESCUE_ROWS])
        return [row for row in expired if give_back(row)]

    total = 0
    while rescued := in_transaction(rows.db, chunk):
        total += len(rescued)
        for row in rescued:
            announce(row)
    return total


def give_back(job: AbstractJob) -> bool:
    """Return an expired job to its queue, or fail it when it has killed too many workers."""
    deaths = job.worker_deaths + (job.begun_at is not None)
    if deaths < settings.MAX_WORKER_DEATHS:
        return job.put_back(worker_deaths=deaths)
    reason = WORKER_DIED.format(deaths)
    return job.rest(JobStatus.FAILED, worker_deaths=deaths, error_message=reason)


def kick_waiting(queue: type[AbstractJob], using: str) -> int:
    """Send kicks for what is due and not running; return for how many lanes or jobs."""
    if queue.dependent_fields is None:
        return _kick_pool(queue, using)
    rows = queue.rows(using)
    name = f"{TICK}:{queue._meta.label}:{using}"
    lanes = rows.startable(next_lanes(rows, CLAIMABLE, Tick, name, settings.SWEEP_LANES))
    if lanes:
        kicks.send(queue, using, lanes)
    return len(lanes)


def next_lanes(
    rows: Any, statuses: tuple[str, ...], ticks: Any, name: str, limit: int
) -> dict[str, int]:
    """Return the next lanes in turn, with the id of their head.

    Goes round: each sweep starts where the last one stopped, which the tick ``name`` keeps.
    """
    alias = router.db_for_write(ticks)
    start, found, stops = ticks.cursor_of(name, alias), dict[str, int](), list[str]()
    for status in statuses:
        heads = list(rows.lane_heads(status, after=start, limit=limit))
        if len(heads) == limit:
            stops.append(heads[-1][0])
        for lane, pk in heads:
            found.setdefault(lane, pk)
    stop = min(stops, default="")
    if stop != start:
        ticks.save_cursor(name, stop, alias)
    return found


def _kick_pool(queue: type[AbstractJob], using: str) -> int:
    rows = queue.rows(using)
    ready = len(rows.ready().values_list("id")[: kicks.BACKLOG]) or int(rows.deferred().exists())
    for _ in range(ready):
        kicks.send(queue, using, None)
    return ready


def _announce(job: AbstractJob) -> None:
    signals.job_rescued.send_robust(sender=type(job), job_id=job.pk, status=job.status)
