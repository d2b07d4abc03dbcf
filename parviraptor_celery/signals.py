"""What the queues tell the rest of the project. Receivers that raise harm nothing."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger("parviraptor_celery")


def tell(signal: Signal, **about: Any) -> None:
    """Send ``signal``; whatever its receivers do harms nobody here.

    Django's ``send_robust`` itself raises when a receiver without a ``__qualname__`` does.
    """
    try:
        signal.send_robust(**about)
    except Exception:
        logger.exception("a receiver of a signal raised")


job_claimed = Signal(use_caching=True)  # sent around every job
"""A worker leased ``job``. Sent with ``sender`` (the queue's class) and ``job``."""

job_finished = Signal(use_caching=True)
"""A run ended. Sent with ``sender``, ``job`` and ``outcome`` (see ``execution``)."""

job_handed_back = Signal()
"""A job that runs was given back to its queue before its end. Sent with ``sender``, ``job``."""

job_progresses = Signal()
"""A run calls ``set_progress()`` for the first time, in the thread of its body. Sent with
``sender`` and ``job``, whose ``progress`` is the newest at any time."""

job_rescued = Signal()
"""A lease ran out. Sent with ``sender``, ``job_id`` and ``status`` (what the job is now)."""

lease_lost = Signal()
"""A worker came back too late. Sent with ``sender`` and ``job``."""

dependents_failed = Signal()
"""Waiting jobs failed with their cause. Sent with ``sender``, ``lane``, ``cause_id``, ``rows``."""

jobs_squashed = Signal()
"""A newer job superseded waiting ones. Sent with ``sender``, ``lane``, ``newest_id``, ``rows``."""
queue_paused = Signal()
"""A pause was committed. Sent with ``sender`` (the queue's class), ``using``, ``lane`` or ""."""

queue_resumed = Signal()
"""A pause is over. Sent like ``queue_paused``."""

kick_failed = Signal()
"""A message could not be published. Sent with ``sender`` (the task's name) and ``error``."""
