"""Finds what no kick speaks of any more: leases that ran out, lanes whose kick was lost."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import Error, router

from . import kicks, registry, signals
from .conf import settings
from .lanes import lane_of
from .models import AbstractJob, Tick
from .states import CLAIMABLE, JobStatus
from .sweeping import heads_behind, next_lanes, rescue_expired

logger = logging.getLogger("parviraptor_celery")

ADOPTED_ROWS = 100
TICK = "dispatch"
ASKERS = ("beat", "worker")
FOREGROUND = "process_queue"
"""Asks for no sweep, but rescues its own queue."""

MOST_DEATHS = 2**15 - 1
"""The largest number of the column."""

WORKER_DIED = "the worker died {} times while it ran this job"


def sweep_all(*, force: bool = False) -> bool:
    """Rescue and kick every queue; False when somebody did so within half an interval."""
    alias = router.db_for_write(Tick)
    is_due = Tick.objects.take(TICK, settings.DISPATCH_INTERVAL_SECONDS / 2, using=alias)
    if not (is_due or force):
        return False
    registry.for_each_queue(_sweep)
    return True


def note_asker(asker: str) -> None:
    """Remember that one of ``ASKERS`` asked for a sweep; strangers are not noted."""
    if asker in (*ASKERS, FOREGROUND):
        Tick.objects.note(f"{TICK}:{asker}", using=router.db_for_write(Tick))


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


def give_back(job: AbstractJob) -> bool:
    """Return an expired job to its queue, or fail it when it has killed too many workers."""
    deaths = min(job.worker_deaths + (job.begun_at is not None), MOST_DEATHS)
    if deaths < settings.MAX_WORKER_DEATHS:
        return job.put_back(worker_deaths=deaths)
    reason = WORKER_DIED.format(deaths)
    return job.rest(JobStatus.FAILED, worker_deaths=deaths, error_message=reason)


def kick_waiting(queue: type[AbstractJob], using: str) -> int:
    """Send kicks for what is due and not running; return for how many lanes or jobs."""
    if queue.dependent_fields is None:
        return kicks.send_for_pool(queue, using)
    rows = queue.rows(using)
    name = f"{TICK}:{queue._meta.label}:{using}"
    lanes = _startable(rows, next_lanes(rows, CLAIMABLE, Tick, name, _lanes_at_once()))
    if lanes:
        kicks.send(queue, using, lanes)
    return len(lanes)


def kick_lanes(queue: type[AbstractJob], using: str, after: str) -> str:
    """Send kicks for the lanes behind ``after``; return where to go on, or "" at the end."""
    rows = queue.rows(using)
    heads, stop = heads_behind(rows, CLAIMABLE, after, _lanes_at_once())
    if lanes := _startable(rows, heads):
        kicks.send(queue, using, lanes)
    return stop


def _lanes_at_once() -> int:
    # No more than what is kicked lane by lane: beyond that kicks.send() asks for a walk like this.
    return min(settings.SWEEP_LANES, kicks.MOST_LANES // len(CLAIMABLE))


def _startable(rows: Any, heads: list[dict[str, int]]) -> list[str]:
    # A deferred job may run where the waiting head is not due yet.
    return sorted({lane for found in heads for lane in rows.startable(found)})


def adopt(queue: type[AbstractJob], using: str) -> int:
    """Give a lane to the jobs of an ordered queue that have none; return how many.

    Raw fixtures insert such rows, and so does a queue that was independent before a deploy.
    """
    adopted = 0
    for status in CLAIMABLE:  # each by its own index; of both at once the table would be read
        adopted += _adopt(queue, queue.rows(using).without_lane(status))
    return adopted


def _adopt(queue: type[AbstractJob], orphans: Any) -> int:
    adopted = 0
    for pk in list(orphans.values_list("pk", flat=True)[:ADOPTED_ROWS]):
        row = orphans.filter(pk=pk).order_by()
        try:
            lane = _lane_in(queue, row)
        except (Error, ObjectDoesNotExist):
            raise
        except Exception as error:  # also of a field that can't read what is there
            logger.error("%s %s has no lane: %s", queue._meta.label, pk, type(error).__name__)
            continue
        adopted += row.update(lane=lane)
    return adopted


def _lane_in(queue: type[AbstractJob], row: Any) -> str:
    """Return the lane of a row, of which nothing is read but what decides about that."""
    names = queue.dependent_fields or []
    others = [field.name for field in queue.own_fields() if field.name not in names]
    return lane_of(row.defer(*others).get(), names)


def _announce(job: AbstractJob) -> None:
    signals.tell(signals.job_rescued, sender=type(job), job_id=job.pk, status=job.status)
