"""The Celery tasks: thin shells around dispatch, sweep and cleanup."""

from __future__ import annotations

import logging
from typing import Any

from celery import Task, shared_task
from celery.signals import worker_ready

from . import broker, cleanup, dispatch, kicks, registry, sweep, worker
from .conf import settings
from .exceptions import UnknownDatabase, UnknownQueue
from .kick_arguments import is_lane, require_alias, sound_lanes
from .retries import retry_when_due

logger = logging.getLogger("parviraptor_celery")


@shared_task(name=kicks.PROCESS, bind=True, acks_late=False, ignore_result=True, max_retries=None)
def process_jobs(
    self: Task, queue: str, using: str = "default", lanes: list[str] | None = None
) -> int:
    """Work off ``lanes`` of a queue, or an independent queue; return the number of jobs run.

    A queue that this worker doesn't know (yet) is left alone: its rows wait for a worker that
    does. Jobs that were put back show as RETRY, due at the earliest of their times.
    """
    model = _queue_in(queue, using)
    if model is None:
        return 0
    budget = dispatch.kick_budget()
    if model.dependent_fields is None:
        report = dispatch.run_pool(model, using, budget)
    else:
        report = dispatch.run_lanes(model, using, sound_lanes(lanes, queue, logger), budget)
    if report.left_over or (report.is_exhausted and not lanes):
        broker.kick(kicks.PROCESS, queue=queue, using=using, lanes=report.left_over or None)
    retry_when_due(self, report, queue=queue, using=using)
    return report.rows


@shared_task(name=kicks.DISPATCH, acks_late=False, ignore_result=True)
def dispatch_jobs(
    force: bool = False,
    queue: str | None = None,
    using: str = "default",
    after: str = "",
    asked_by: str = "",
) -> bool:
    """Rescue expired leases and kick what waits; False when another sweep has just done so.

    With a ``queue``: kick all its lanes behind the lane ``after``, some now, and the rest by a
    message to itself. ``asked_by`` is "beat" or "worker" where one of these asks, so that
    monitoring can tell when each last did.
    """
    if queue is None:
        sweep.note_asker(asked_by)
        return sweep.sweep_all(force=force)
    model = _queue_in(queue, using)
    if model is None or model.dependent_fields is None:
        return False
    if after and not is_lane(after):
        logger.warning("a walk over the lanes of %s: where to go on is none of them", queue)
        return False
    if stop := sweep.kick_lanes(model, using, after or ""):
        broker.kick(kicks.DISPATCH, queue=queue, using=using, after=stop)
    return True


@shared_task(name="parviraptor_celery.clean_jobs", acks_late=False, ignore_result=True)
def clean_jobs() -> int:
    """Delete old processed jobs of every queue; return the number of rows."""
    return cleanup.clean_all()


@worker_ready.connect(dispatch_uid="parviraptor_celery.sweep_without_beat")
def sweep_without_beat(sender: Any, **_: Any) -> None:
    """Let the worker's own timer ask for sweeps, should beat be late or missing."""
    worker.ask_regularly(
        sender, kicks.DISPATCH, settings.DISPATCH_INTERVAL_SECONDS, asked_by="worker"
    )


def _queue_in(queue: object, using: object) -> Any:
    """Return the queue of a kick, or None, with a log line, where nobody here knows it."""
    try:
        require_alias(using)
        return registry.get_queue(queue)
    except (UnknownQueue, UnknownDatabase) as error:
        logger.warning("a kick was left alone: %s", error)
        return None
