"""The Celery tasks: thin shells around the relay, its sweep and the cleaner."""

from __future__ import annotations

import logging
from typing import Any

from celery import Task, shared_task
from celery.signals import worker_process_shutdown, worker_ready, worker_shutdown

from parviraptor_celery import broker, worker
from parviraptor_celery.exceptions import UnknownDatabase
from parviraptor_celery.kick_arguments import require_alias, sound_lanes
from parviraptor_celery.retries import retry_when_due

from . import cleanup, dispatch, hooks, kicks, sweep
from .conf import settings

logger = logging.getLogger("jaiminho_celery")

WRITER_RETRIES = 10
"""How often a task comes back, after a second each, for a lane that an open transaction holds.

After that the writer's own nudge at its commit, or the next sweep, comes to the lane.
"""


@shared_task(name=kicks.RELAY, bind=True, acks_late=False, ignore_result=True, max_retries=None)
def relay_events(
    self: Task, using: str | None = None, lanes: list[str] | None = None, force: bool = False
) -> int:
    """Publish what is due; return the number of events tried.

    A nudge names a database and lanes (none: what keeps no order); beat names nothing, and gets a
    sweep of everything.
    """
    if using is None:
        return _sweep(force)
    try:
        require_alias(using)
    except UnknownDatabase as error:
        logger.warning("a nudge was left alone: %s", error)
        return 0
    if not lanes:
        report = dispatch.relay_pool(using, dispatch.nudge_budget())
    else:
        known = sound_lanes(lanes, f"the outbox in {using}", logger)
        patient = self.request.retries < WRITER_RETRIES
        report = dispatch.relay_lanes(using, known, dispatch.nudge_budget(), await_writers=patient)
    if report.left_over or (report.is_exhausted and not lanes):
        broker.kick(kicks.RELAY, using=using, lanes=report.left_over)
    retry_when_due(self, report, using=using)
    return report.rows


@shared_task(name="jaiminho_celery.clean_events", acks_late=False, ignore_result=True)
def clean_events() -> int:
    """Delete old published events; return the number of rows."""
    return cleanup.clean_all()


def _sweep(force: bool) -> int:
    reports = sweep.sweep_all(dispatch.nudge_budget(), force=force)
    for using, report in reports:
        if report.is_exhausted:
            broker.kick(kicks.RELAY, using=using)
        if report.pauses:
            kicks.later(using, min(report.pauses.values()))
    return sum(report.rows for _, report in reports)


@worker_ready.connect(dispatch_uid="jaiminho_celery.sweep_without_beat")
def sweep_without_beat(sender: Any, **_: Any) -> None:
    """Let the worker's own timer ask for sweeps, should beat be late or missing."""
    worker.ask_regularly(sender, kicks.RELAY, settings.RELAY_INTERVAL_SECONDS)


@worker_process_shutdown.connect(dispatch_uid="jaiminho_celery.flush_child")
@worker_shutdown.connect(dispatch_uid="jaiminho_celery.flush")
def flush(**_: Any) -> None:
    """Publish what the last tasks have sent: a prefork child ends without its exit handlers."""
    hooks.flush()
