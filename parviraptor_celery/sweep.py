"""Finds what no kick speaks of any more: leases that ran out, lanes whose kick was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import router

from . import kicks, registry, signals
from .conf import settings
from .database import in_transaction
from .lanes import lane_of
from .models import AbstractJob, Tick
from .states import CLAIMABLE, JobStatus

RESCUE_ROWS = 100
ADOPTED_ROWS = 100
TICK = "dispatch"
WORKER_DIED = "the worker died {} times while it ran this job"


def sweep_all(*, force: bool = False) -> bool:
    """Rescue and kick every queue; False when somebody did so within half an interval."""
    alias = router.db_for_write(Tick)
    is_due = Tick.objects.take(TICK, settings.DISPATCH_INTERVAL_SECONDS / 2, using=alias)
    if not (is_due or force):
        return False
    registry.for_each_queue(_sweep)
    return True


def is_in_mid_round() -> bool:
    """Return whether the last sweep left lanes of some queue for the next one."""
    ticks = Tick.objects.using(router.db_for_write(Tick))
    return ticks.filter(name__startswith=f"{TICK}:").exclude(cursor="").exists()


def _sweep(queue: type[AbstractJob], using: str) -> None:
    rescue(queue, using)
    if queue.dependent_fields is not None:
        adopt(queue, using)
    kick_waiting(queue, using)


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
    heads = next_lanes(rows, CLAIMABLE, Tick, name, settings.SWEEP_LANES)
    # A deferred job may run where the waiting head is not due yet.
    lanes = sorted({lane for found in heads for lane in rows.startable(found)})
    if lanes:
        kicks.send(queue, using, lanes)
    return len(lanes)


def adopt(queue: type[AbstractJob], using: str) -> int:
    """Give a lane to the jobs of an ordered queue that have none; return how many.

    Raw fixtures insert such rows, and so does a queue that was independent before a deploy.
    """
    orphans = queue.rows(using).filter(lane__isnull=True, status__in=CLAIMABLE).order_by("id")
    adopted = 0
    for job in orphans[:ADOPTED_ROWS]:
        lane = lane_of(job, queue.dependent_fields or [])
        adopted += orphans.filter(pk=job.pk).order_by().update(lane=lane)
    return adopted


def next_lanes(
    rows: Any, statuses: tuple[str, ...], ticks: Any, name: str, limit: int
) -> list[dict[str, int]]:
    """Return, for each status, the next lanes in turn with the id of their head.

    Goes round: each sweep starts where the last one stopped, which the tick ``name`` keeps.
    """
    alias = router.db_for_write(ticks)
    start = ticks.cursor_of(name, alias)
    found = [dict(rows.lane_heads(status, after=start, limit=limit)) for status in statuses]
    stop = min((max(heads) for heads in found if len(heads) == limit), default="")
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
    signals.tell(signals.job_rescued, sender=type(job), job_id=job.pk, status=job.status)
