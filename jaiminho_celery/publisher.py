"""A thread that publishes, by the batch, what its process has just committed: Celery messages.

The caller waits neither for the broker nor for the settlement: the hook after its commit only
hands the event over. The rows are leased to the process meanwhile; should it die, the relay takes
them when the lease has run out, like those of a hook that died.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

from django.db import connections

if TYPE_CHECKING:
    from .hooks import Leased

logger = logging.getLogger("jaiminho_celery")

BATCH = 500
MOST_WAITING = 20 * BATCH
"""With more the broker can't keep up: they wait for the relay, not in memory."""

PAUSE_SECONDS = 0.02
"""Between two batches, so that more comes together; after a quiet time a message goes at once."""

IDLE_SECONDS = 5.0
EXIT_SECONDS = 5.0


class BackgroundPublisher:
    """The thread, and what waits for it."""

    def __init__(self, publish: Callable[[list[Leased]], None]) -> None:
        self.publish = publish
        self._begin_anew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)
        atexit.register(self.flush, EXIT_SECONDS)

    def _begin_anew(self) -> None:
        # After a fork the thread is gone, and what it had to do is the parent's.
        self._changed = threading.Condition()
        self._waiting: list[Leased] = []
        self._is_busy = False
        self._thread: threading.Thread | None = None
        self._last_at = 0.0

    def add(self, leased: Leased) -> None:
        """Hand an event over; returns at once."""
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                logger.warning("event %s: too many before it, the relay takes it", leased.event.pk)
                return
            self._waiting.append(leased)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until nothing waits any more; return False after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._is_busy, timeout)

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._publish(batch)
        finally:
            connections.close_all()

    def _next(self) -> list[Leased]:
        """Wait for something to do; return it, or nothing after an idle time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, IDLE_SECONDS):
                self._thread = None
                return []
            pause = self._last_at + PAUSE_SECONDS - time.monotonic()
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH, max(pause, 0.0))
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            self._is_busy = True
            return batch

    def _publish(self, batch: list[Leased]) -> None:
        try:
            for _, leased in groupby(batch, key=lambda one: one.event.alias):
                self._publish_or_leave(list(leased))
            if not self._waiting:
                self._close_old_connections()
        finally:
            self._last_at = time.monotonic()
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()

    def _publish_or_leave(self, leased: list[Leased]) -> None:
        try:
            self.publish(leased)
        except Exception:  # a database that is away, for example
            logger.exception("%s events are left to the relay", len(leased))

    def _close_old_connections(self) -> None:
        """Treat connections as Django does after each request, by CONN_MAX_AGE."""
        for connection in connections.all(initialized_only=True):
            connection.close_if_unusable_or_obsolete()
