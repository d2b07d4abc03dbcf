"""Celery's retry, for rows that were put back. Both apps use this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import broker
from .conf import settings
from .drains import Report

MOST_TIMES = 10

if TYPE_CHECKING:
    from celery import Task


def retry_when_due(task: Task, report: Report, **kwargs: Any) -> None:
    """Let Celery come back at the earliest time at which a row that was put back is due.

    ``run_after`` is committed already and decides; the countdown is only its echo. It is capped
    because Redis delivers a message again that is held longer than its visibility timeout
    (celery#5935). Run eagerly, a retry would recurse, so the sweep does it there.

    A task has one retry only, so lanes that are due later get kicks of their own, for as many
    times as ``MOST_TIMES``; what is beyond is left to the sweep.

    Raises:
        celery.exceptions.Retry: by which Celery, and Flower, know that the task comes back.
    """
    if not report.pauses or task.request.is_eager:
        return
    (countdown, lanes), *later = _by_countdown(report)
    for seconds, others in later[:MOST_TIMES]:
        broker.kick(task.name, countdown=seconds, **kwargs, lanes=others)
    raise task.retry(kwargs={**kwargs, "lanes": lanes}, countdown=countdown, max_retries=None)


def _by_countdown(report: Report) -> list[tuple[float, list[str] | None]]:
    """Return what was put back by how many seconds it waits, to the second; the earliest first."""
    found: dict[int, tuple[float, list[str | None]]] = {}
    for lane, pause in report.pauses.items():
        seconds = min(pause.total_seconds(), settings.RETRY_COUNTDOWN_CAP_SECONDS)
        longest, lanes = found.get(int(seconds), (0.0, []))
        found[int(seconds)] = max(seconds, longest), [*lanes, lane]
    groups = [found[second] for second in sorted(found)]
    return [
        (seconds, [lane for lane in lanes if lane is not None] or None) for seconds, lanes in groups
    ]
