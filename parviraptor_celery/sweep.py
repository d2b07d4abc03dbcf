"""Finds what no kick speaks of any more: leases that ran out, lanes whose kick was lost."""

from __future__ import annotations

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
    if not Tick.objects.take(TICK, settings.DISPATCH_INTERVAL_SECONDS / 2, using=alias) and not force:
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
    rescued = 0
    while jobs := in_transaction(using, lambda: _rescue_chunk(queue, using)):
        rescued += len(jobs)
        for job in jobs:
            signals.job_rescued.send_robust(sender=queue, job_id=job.pk, status=job.status)
        if len(jobs) < RESCUE_ROWS:
            break
    return rescued


def _rescue_chunk(queue: type[AbstractJob], using: str) -> list[AbstractJob]:
    expired = list(queue.rows(using).expired().locked(skip=True)[:RESCUE_ROWS])
    return [job for job in expired if _give_back(job)]


def _give_back(job: AbstractJob) -> bool:
    deaths = job.worker_deaths + (job.begun_at is not None)
    if deaths < settings.MAX_WORKER_DEATHS:
        return job.put_back(worker_deaths=deaths)
    return job.rest(
        JobStatus.FAILED, worker_deaths=deaths, error_message=WORKER_DIED.format(deaths)
    )


def kick_waiting(queue: type[AbstractJob], using: str) -> int:
    """Send kicks for what is due and not running; return how many lanes or messages."""
    if queue.dependent_fields is None:
        return _kick_pool(queue, using)
    lanes = _lanes_due(queue, using)
    if lanes:
        kicks.send(queue, using, lanes)
    return len(lanes)


def _kick_pool(queue: type[AbstractJob], using: str) -> int:
    rows = queue.rows(using)
    ready = len(rows.ready().values_list("id")[: kicks.BACKLOG]) or int(rows.deferred().exists())
    for _ in range(ready):
        kicks.send(queue, using, None)
    return ready


def _lanes_due(queue: type[AbstractJob], using: str) -> list[str]:
    """Return the lanes to kick, going round: each sweep starts where the last one stopped."""
    rows, limit = queue.rows(using), settings.SWEEP_LANES
    name = f"{TICK}:{queue._meta.label}:{using}"
    alias = router.db_for_write(Tick)
    start = Tick.cursor_of(name, alias)
    found: dict[str, int] = {}
    cursor = ""
    for status in CLAIMABLE:
        heads = list(rows.lane_heads(status, after=start, limit=limit))
        if len(heads) == limit:
            cursor = min(cursor or heads[-1][0], heads[-1][0])
        found.update({lane: pk for lane, pk in heads if lane not in found})
    if cursor != start:
        Tick.save_cursor(name, cursor, alias)
    return _startable(queue, using, found)


def _startable(queue: type[AbstractJob], using: str, heads: dict[str, int]) -> list[str]:
    rows, lanes = queue.rows(using), sorted(heads)
    startable: list[str] = []
    for first in range(0, len(lanes), 500):
        chunk = lanes[first : first + 500]
        due = rows.filter(id__in=[heads[lane] for lane in chunk]).due()
        running = rows.filter(running_lane__in=chunk).values_list("running_lane", flat=True)
        startable += sorted(set(due.values_list("lane", flat=True)) - set(running))
    return startable
