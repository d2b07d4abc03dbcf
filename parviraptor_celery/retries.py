"""Celery's retry, for rows that were put back. Both apps use this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .conf import settings
from .drains import Report

if TYPE_CHECKING:
    from celery import Task


def retry_when_due(task: Task, report: Report, **kwargs: Any) -> None:
    """Let Celery come back at the earliest time at which a row that was put back is due.

    ``run_after`` is committed already and decides; the countdown is only its echo. It is capped
    because Redis delivers a message again that is held longer than its visibility timeout
    (celery#5935). Run eagerly, a retry would recurse, so the sweep does it there.

    Raises:
        celery.exceptions.Retry: by which Celery, and Flower, know that the task comes back.
    """
    if not report.pauses or task.request.is_eager:
        return
    pause = min(report.pauses.values()).total_seconds()
    lanes = [lane for lane in report.pauses if lane is not None]
    raise task.retry(
        kwargs={**kwargs, "lanes": lanes or None},
        countdown=min(pause, settings.RETRY_COUNTDOWN_CAP_SECONDS),
        max_retries=None,
    )
