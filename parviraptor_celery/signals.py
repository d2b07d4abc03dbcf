"""What the queues tell the rest of the project. Receivers that raise harm nothing."""

from __future__ import annotations

from django.dispatch import Signal

job_claimed = Signal()
"""A worker leased ``job``. Sent with ``sender`` (the queue's class) and ``job``."""

job_finished = Signal()
"""A run ended. Sent with ``sender``, ``job`` and ``outcome`` (see ``execution``)."""

job_rescued = Signal()
"""A lease ran out. Sent with ``sender``, ``job_id`` and ``status`` (what the job is now)."""

lease_lost = Signal()
"""A worker came back too late. Sent with ``sender`` and ``job``."""

dependents_failed = Signal()
"""Waiting jobs failed with their cause. Sent with ``sender``, ``lane``, ``cause_id``, ``rows``."""

kick_failed = Signal()
"""A message could not be published. Sent with ``sender`` (the task's name) and ``error``."""
