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
MOST_BYTES = 64 * 1024 * 1024
"""With more of either the broker can't keep up: the rest waits for the relay, not in memory."""

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
        self._bytes, self._was_full = 0, False
        self._is_busy = False
        self._thread: threading.Thread | None = None
        self._last_at = 0.0

    def add(self, leased: Leased) -> None:
        """Hand an event over; returns at once."""
        with self._changed:
            if self._has_no_room_for(leased):
                return
            self._waiting.append(leased)
            self._bytes += len(leased.event.body)
            self._start_if_needed()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until nothing waits any more; return False after ``timeout`` seconds."""
        with self._changed:
            if self._waiting:
                self._start_if_needed()
            return self._changed.wait_for(lambda: not self._waiting and not self._is_busy, timeout)

    def _has_no_room_for(self, leased: Leased) -> bool:
        is_full = len(self._waiting) >= MOST_WAITING or (
            self._waiting and self._bytes + len(leased.event.body) > MOST_BYTES
        )
        if is_full and not self._was_full:
            logger.warning("from event %s on the relay takes them: too many wait", leased.event.pk)
        self._was_full = bool(is_full)
        return self._was_full

    def _start_if_needed(self) -> None:
        # It may have ended: after an idle time, or by a SystemExit that somebody's receiver raised.
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._publish(batch)
        finally:
            connections.close_all()
            self._hand_on()

    def _hand_on(self) -> None:
        """Let a new thread go on where this one ends by a SystemExit that a receiver raised."""
        with self._changed:
            if self._thread is threading.current_thread():
                self._thread = None
                if self._waiting:
                    self._start_if_needed()

    def _next(self) -> list[Leased]:
        """Wait for something to do; return it, or nothing after an idle time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, IDLE_SECONDS):
                self._thread = None
                return []
            pause = self._last_at + PAUSE_SECONDS - time.monotonic()
            self._changed.wait_for(lambda: len(self._waiting) >= BATCH, max(pause, 0.0))
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            self._bytes -= sum(len(leased.event.body) for leased in batch)
            self._is_busy = True
            return batch

    def _publish(self, batch: list[Leased]) -> None:
        try:
            for _, leased in groupby(sorted(batch, key=_alias), key=_alias):
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


def _alias(leased: Leased) -> str:
    return leased.event.alias
