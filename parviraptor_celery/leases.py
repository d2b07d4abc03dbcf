"""Leases: a row belongs to a worker until a moment of the database's clock.

A worker that lives renews what it holds (a heartbeat, every third of the lease); one that died
doesn't, and its rows go back. Both apps use this module.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connections

logger = logging.getLogger("parviraptor_celery")

HEARTBEATS_PER_LEASE = 3
HASTE_SECONDS = 1.0
_of_this_thread = threading.local()


def worker_identity() -> str:
    """Return a name for this thread of this process that no other has, earlier or later.

    A host name or a pod's name comes back after a restart, and a process id is used again;
    the random part is what makes the name safe to compare. A thread claims one thing after
    another: what is leased to it under this name, it has claimed itself.
    """
    pid, name = getattr(_of_this_thread, "identity", (0, ""))
    if pid != os.getpid():
        pid = os.getpid()
        name = f"{socket.gethostname()[:60]}:{pid}:{secrets.token_hex(4)}"
        _of_this_thread.identity = pid, name
    return str(name)


class Heartbeat:
    """Renews leases from one lazy thread, which has a database connection of its own.

    The thread starts with the first lease and then looks every few seconds; a job that is
    shorter than a third of its lease costs it nothing but an entry in a dictionary.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._entries: dict[object, _Entry] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def keep(self, renew: Callable[[], bool], lease_seconds: float) -> Iterator[Callable[[], None]]:
        """Call ``renew`` every third of ``lease_seconds`` while the block runs.

        What the block gets is a function that has ``renew`` called soon: ``HASTE_SECONDS`` after
        the last time, or after the beginning.

        ``renew`` returns False when the lease is lost, which ends the calls. A database error
        in it is logged and tried again a third later: the lease itself says what is true.
        """
        self._forget_the_parent()
        every = lease_seconds / HEARTBEATS_PER_LEASE
        entry = _Entry(renew, every, time.monotonic() + every)
        key = object()
        with self._changed:
            self._entries[key] = entry
            self._wake_or_start(every)
        try:
            yield lambda: self._hasten(entry)
        finally:
            with self._changed:
                self._entries.pop(key, None)

    def _hasten(self, entry: _Entry) -> None:
        with self._changed:
            soon = entry.last + HASTE_SECONDS
            if soon < entry.at:
                entry.at, entry.is_hastened = soon, True
                self._changed.notify()

    def _forget_the_parent(self) -> None:
        # After a fork the thread is gone and the lock may be held by nobody.
        if self._pid != os.getpid():
            self.__init__()  # type: ignore[misc]

    def _wake_or_start(self, every: float) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._pause = every
            self._thread = threading.Thread(target=self._run, name="lease-heartbeat", daemon=True)
            self._thread.start()
        elif every < self._pause:
            self._changed.notify()

    def _run(self) -> None:
        try:
            while due := self._wait_for_due():
                for key, entry in due:
                    self._renew(key, entry)
                # Until the next time it would only be one of those that the server can have.
                connections.close_all()
        finally:
            connections.close_all()

    def _wait_for_due(self) -> list[tuple[object, _Entry]]:
        """Sleep until something is due; return it, or nothing after an idle pause."""
        with self._changed:
            while True:
                moment = time.monotonic()
                due = [(key, entry) for key, entry in self._entries.items() if entry.at <= moment]
                if due:
                    return due
                if self._entries:
                    self._pause = min(entry.every for entry in self._entries.values())
                    self._changed.wait(min(entry.at for entry in self._entries.values()) - moment)
                elif not self._changed.wait(self._pause) and not self._entries:
                    self._thread = None
                    return []

    def _renew(self, key: object, entry: _Entry) -> None:
        with self._changed:  # before the call: what is hastened meanwhile comes after it
            entry.last, entry.is_hastened = time.monotonic(), False
            entry.at = float("inf")
        try:
            held = entry.renew()
        except Exception as error:
            logger.warning("a heartbeat failed (%s), trying again", type(error).__name__)
            held = self._renew_on_a_new_connection(entry)
        with self._changed:
            if not held:
                self._entries.pop(key, None)
            elif not entry.is_hastened:
                entry.at = time.monotonic() + entry.every

    def _renew_on_a_new_connection(self, entry: _Entry) -> bool:
        connections.close_all()  # this thread's own, and perhaps dead for good
        try:
            return entry.renew()
        except Exception as error:
            logger.error("a heartbeat failed again (%s)", type(error).__name__)
            return True  # the lease itself says what is true


class _Entry:
    def __init__(self, renew: Callable[[], bool], every: float, at: float) -> None:
        self.renew, self.every, self.at = renew, every, at
        self.last, self.is_hastened = at - every, False


heartbeat = Heartbeat()
