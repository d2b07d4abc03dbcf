"""What a Celery worker does around tasks. Both apps use this module."""

from __future__ import annotations

from typing import Any

from celery.signals import task_postrun, task_prerun
from django.db import connections

from . import broker


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


def ask_regularly(worker: Any, task: str, interval: float) -> None:
    """Let the worker's own timer kick ``task``, should beat be late or missing."""
    worker.timer.call_repeatedly(interval, broker.kick, args=(task,))
