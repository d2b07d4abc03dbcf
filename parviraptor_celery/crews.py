"""For tests: workers of one queue, in threads of this process and without a broker."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.db.models import Min
from django.db.transaction import TransactionManagementError

from . import broker
from .foreground import ForegroundWorker
from .jobs import AbstractJob
from .statements import database_time
from .states import CLAIMABLE, JobStatus
from .virtual_clock import VirtualClock

PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.02
_LONGEST_LOOK_SECONDS = 1.0
_A_MOMENT = timedelta(milliseconds=10)
"""SQLite's clock has milliseconds only, and may read earlier than what it is compared with."""


def run_queue(
    job_class: type[AbstractJob], number_of_threads: int = 1, *, using: str | None = None
) -> int:
    """Run what is due of a queue, and what that enqueues; return the number of bodies run.

    First, leases that ran out are rescued. With one thread, it is this one. Other databases than
    ``using``, by default the one where the router writes, are left alone.

    Raises:
        TimeoutError: there was no end to it.
        ImproperlyConfigured: several threads can't use a database in memory.
        TransactionManagementError: several threads don't see what the caller's transaction, a
            plain ``TestCase`` for example, has not committed.
    """
    if number_of_threads < 1:
        raise ValueError(f"number_of_threads is {number_of_threads}, and must be 1 at least.")
    crew = _Crew(job_class, using or router.db_for_write(job_class), number_of_threads)
    # The workers find the jobs by themselves, also those that other jobs enqueue.
    with broker.silence():
        if number_of_threads == 1:
            crew.work()
        else:
            _refuse_a_database_in_memory(crew.using)
            _refuse_a_transaction(crew.using, number_of_threads)
            _in_threads(crew, number_of_threads)
    return crew.rows


def run_queue_to_the_end(
    job_class: type[AbstractJob], number_of_threads: int, using: str, clock: VirtualClock
) -> int:
    """Like ``run_queue``, but advance ``clock`` to whatever is due later, until nothing is."""
    deadline, rows = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        rows += run_queue(job_class, number_of_threads, using=using)
        pause = _next_pause(job_class, using)
        if pause is None:
            return rows
        if time.monotonic() > deadline:
            raise TimeoutError(f"There are always more {job_class.__name__}s that are due later.")
        clock.advance(max(pause, timedelta()) + _A_MOMENT)


class _Crew:
    """Workers that end together: as soon as each has looked and found nothing to do."""

    def __init__(self, job_class: type[AbstractJob], using: str, size: int) -> None:
        self.job_class, self.using, self.size = job_class, using, size
        self.rows = self.idle = 0
        self.changed = threading.Condition()
        self.stop = _Deadline(PATIENCE_SECONDS)

    def work(self) -> None:
        worker = ForegroundWorker(self.job_class, self.stop)
        try:
            pause = _LOOK_SECONDS
            while True:
                done = worker.run_in(self.using)
                if not self._goes_on(done, pause):
                    return
                # Longer and longer: however long a look takes, in the end all wait at a time.
                pause = _LOOK_SECONDS if done else min(pause * 2, _LONGEST_LOOK_SECONDS)
                if self.stop.is_set():
                    name = self.job_class.__name__
                    raise TimeoutError(f"There was no end to the {name}s that are due.")
        finally:
            with self.changed:
                self.size -= 1
                self.changed.notify_all()

    def _goes_on(self, done: int, pause: float) -> bool:
        """Return whether a worker that has just run ``done`` jobs has to look again."""
        with self.changed:
            if done:
                self.rows += done
                return True
            # The others may still enqueue something, or be at a lane that goes on.
            self.idle += 1
            if self.idle < self.size:
                self.changed.wait(pause)
            if self.idle >= self.size:
                self.changed.notify_all()
                return False
            self.idle -= 1
            return True


class _Deadline(threading.Event):
    """Is set by itself after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._at = time.monotonic() + seconds

    def is_set(self) -> bool:
        return super().is_set() or time.monotonic() > self._at


def _in_threads(crew: _Crew, number: int) -> None:
    all_there = threading.Barrier(number)

    def work() -> None:
        all_there.wait()  # a worker that dies at once must not leave its thread to the next
        try:
            crew.work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        workers = [pool.submit(work) for _ in range(number)]
        for worker in workers:
            worker.result()


def _refuse_a_database_in_memory(using: str) -> None:
    connection: Any = connections[using]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        raise ImproperlyConfigured(
            f"The test database {using!r} is an SQLite database in memory, which several "
            f"threads can't write to. Let it be a file: "
            f'DATABASES["{using}"]["TEST"] = {{"NAME": "test.sqlite3"}}'
        )


def _refuse_a_transaction(using: str, number: int) -> None:
    if connections[using].in_atomic_block:
        raise TransactionManagementError(
            f"{number} threads don't see what this one's transaction of {using!r} has not "
            "committed. Use a QueueTestCase or TransactionTestCase rather than a TestCase (with "
            "pytest: django_db(transaction=True)), or let number_of_threads be 1."
        )


def _next_pause(job_class: type[AbstractJob], using: str) -> timedelta | None:
    """Return how long it is until a job of ``using`` is due, or a lease runs out, or None."""
    rows = job_class.rows(using)
    moment = database_time(using)
    later = rows.filter(status__in=CLAIMABLE, run_after__gt=moment)
    leased = rows.filter(status=JobStatus.PROCESSING)
    moments = [
        later.aggregate(at=Min("run_after"))["at"],
        leased.aggregate(at=Min("lease_until"))["at"],
    ]
    return min((at - moment for at in moments if at is not None), default=None)
