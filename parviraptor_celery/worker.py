"""What a Celery worker does around tasks. Both apps use this module."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.signals import task_postrun, task_prerun, worker_init, worker_shutting_down
from django.db import connections

from . import broker, stopping


@task_prerun.connect(dispatch_uid="parviraptor_celery.renew_connections_before")
@task_postrun.connect(dispatch_uid="parviraptor_celery.renew_connections_after")
def renew_connections(**_: Any) -> None:
    """Close connections that broke, or are too old, so that the next query opens new ones.

    With CELERY_DB_REUSE_MAX Celery keeps connections over many tasks, the broken ones too: after
    a failover a worker would fail until it had counted to the end.
    """
    for connection in connections.all(initialized_only=True):
        # With CONN_MAX_AGE = 0, Django's default, every connection counts as too old.
        if connection.errors_occurred or connection.settings_dict["CONN_MAX_AGE"]:
            connection.close_if_unusable_or_obsolete()


class SaysThatItStops(bootsteps.StartStopStep):
    """Tells who runs jobs, however the worker came to its end: by remote control, by SIGHUP."""

    def close(self, worker: Any) -> None:
        stopping.announce()


@worker_init.connect(dispatch_uid="parviraptor_celery.prepare_to_stop")
def prepare_to_stop(sender: Any, **_: Any) -> None:
    """Before the worker forks: make what its children will hear of its end by."""
    stopping.prepare(is_over=lambda: sender.blueprint.shutdown_complete.is_set())
    sender.app.steps["worker"].add(SaysThatItStops)
    wait = getattr(sender, "wait_for_soft_shutdown", None)
    if wait is None:
        return

    def announce_and_wait() -> None:
        # Celery's own signal comes after the wait, when the time is over.
        stopping.announce()
        wait()

    sender.wait_for_soft_shutdown = announce_and_wait


@worker_shutting_down.connect(dispatch_uid="parviraptor_celery.announce_the_stop")
def announce_the_stop(**_: Any) -> None:
    stopping.announce()


def ask_regularly(worker: Any, task: str, interval: float, **kwargs: Any) -> None:
    """Let the worker's own timer kick ``task`` with ``kwargs``, should beat be late or missing."""
    worker.timer.call_repeatedly(interval, broker.kick, args=(task,), kwargs=kwargs)
