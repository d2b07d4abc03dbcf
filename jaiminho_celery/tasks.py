"""The Celery tasks: thin shells around the relay, its sweep and the cleaner."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task
from celery.signals import worker_ready

from parviraptor_celery import broker
from parviraptor_celery.retries import retry_when_due

from . import cleanup, dispatch, kicks, sweep
from .conf import settings


@shared_task(name=kicks.RELAY, bind=True, acks_late=False, ignore_result=True, max_retries=None)
def relay_events(
    self: Task, using: str | None = None, lanes: list[str] | None = None, force: bool = False
) -> int:
    """Publish what is due; return the number of events tried.

    A nudge names a database and lanes; beat names nothing, and gets a sweep of everything.
    """
    if using is None or lanes is None:
        return _sweep(force)
    report = dispatch.relay_lanes(using, lanes, dispatch.nudge_budget())
    if report.left_over:
        broker.kick(kicks.RELAY, using=using, lanes=report.left_over)
    retry_when_due(self, report, using=using)
    return report.rows


@shared_task(name="jaiminho_celery.clean_events", acks_late=False, ignore_result=True)
def clean_events() -> int:
    """Delete old published events; return the number of rows."""
    return cleanup.clean_all()


def _sweep(force: bool) -> int:
    reports = sweep.sweep_all(dispatch.nudge_budget(), force=force)
    if any(report.is_exhausted for _, report in reports):
        broker.kick(kicks.RELAY, force=True)
    return sum(report.rows for _, report in reports)


@worker_ready.connect(dispatch_uid="jaiminho_celery.sweep_without_beat")
def sweep_without_beat(sender: Any, **_: Any) -> None:
    """Let the worker's own timer ask for sweeps, should beat be late or missing."""
    sender.timer.call_repeatedly(settings.RELAY_INTERVAL_SECONDS, broker.kick, args=(kicks.RELAY,))
