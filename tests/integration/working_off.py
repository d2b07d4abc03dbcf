"""Writes jobs and works them off in this process, also those that it can't read."""

from __future__ import annotations

import threading
from typing import Any

from parviraptor_celery.foreground import ForegroundWorker
from parviraptor_celery.models import AbstractJob


def enqueue(queue: Any, using: str, scripts: list[str], **fields: Any) -> list[Any]:
    queue.enqueue_many([queue(script=script, **fields) for script in scripts], using=using)
    rows = queue.rows(using).defer("script").order_by("id")
    return list(rows)


def work_off(queue: type[AbstractJob], using: str) -> int:
    return ForegroundWorker(queue, threading.Event()).run_in(using)


def statuses(queue: Any, using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))
