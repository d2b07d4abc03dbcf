"""A process is told to stop: its drains end after the job that runs, and that job hears of it.

A Celery worker forks the processes that run jobs, and on a signal only its main process learns
that it ends. So the main process makes a pipe before it forks. One byte in it, which nobody ever
reads, tells all children at once, those too that are started later; so does its end, if the main
process dies. Nobody asks the database, and a child that is replaced hears nothing.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.db import connections

if TYPE_CHECKING:
    from .models import AbstractJob

logger = logging.getLogger("parviraptor_celery")


class Stop:
    """The notice that a worker stops: given in its main process, seen in all of its processes."""

    def __init__(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Open the pipe. ``is_over``: has the worker stopped for good (in this process)?"""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._made_in, self._is_over, self.is_heard = os.getpid(), is_over, False

    def give(self) -> None:
        """Tell all processes, in a signal handler too; a second time changes nothing."""
        try:
            os.write(self._writer, b"!")
        except OSError:
            logger.debug("the notice of the stop had been given before")

    @property
    def is_given(self) -> bool:
        return self._readable(0) and not self._is_over()

    def wait(self) -> None:
        """Return when the notice is given."""
        if self._made_in != os.getpid():
            # So that the pipe ends with the main process.
            self._made_in = os.getpid()
            os.close(self._writer)
        self._readable(None)

    def _readable(self, timeout: float | None) -> bool:
        waiting = select.poll()
        waiting.register(self._reader, select.POLLIN)
        return bool(waiting.poll(timeout))


class heard_by:
    """Let ``job`` hear of a stop while the block runs: ``with heard_by(job): ...``."""

    def __init__(self, job: AbstractJob) -> None:
        self.job = job
        self._once = threading.Lock()

    def __enter__(self) -> None:
        _running[id(self)] = self
        if _stop is not None:
            _listen(_stop)
            if _stop.is_heard and _stop.is_given:
                self.tell()

    def __exit__(self, *_: object) -> None:
        del _running[id(self)]

    def tell(self) -> None:
        """Call ``on_job_terminated()``, once, in a thread with connections of its own.

        The job's own thread may be in the middle of a query, and its connection is not to be
        touched then.
        """
        if self._once.acquire(blocking=False):
            threading.Thread(target=self._tell, name="job-terminated").start()

    def _tell(self) -> None:
        try:
            self.job.on_job_terminated()
        except Exception:
            logger.exception("%s %s: on_job_terminated() raised", self.job._meta.label, self.job.pk)
        finally:
            connections.close_all()


_running: dict[int, heard_by] = {}
_stop: Stop | None = None
_listener: tuple[int, Stop] | None = None


def prepare(is_over: Callable[[], bool] = lambda: False) -> None:
    """Make the notice of a Celery worker that starts, before it forks."""
    global _stop
    _stop = Stop(is_over)


def announce() -> None:
    """Say that the worker stops, in all of its processes. May be called by a signal handler."""
    if _stop is not None:
        _stop.give()


def is_stopping() -> bool:
    """Return whether this process belongs to a Celery worker that was told to stop."""
    return _stop is not None and _stop.is_given


def tell_jobs(queue: type[AbstractJob] | None = None) -> None:
    """Call ``on_job_terminated()`` of the jobs (of ``queue``) that run in this process."""
    for running in list(_running.values()):
        if queue is None or isinstance(running.job, queue):
            running.tell()


def _listen(stop: Stop) -> None:
    global _listener
    if _listener != (os.getpid(), stop):
        _listener = (os.getpid(), stop)
        threading.Thread(target=_wait, args=[stop], name="stop-listener", daemon=True).start()


def _wait(stop: Stop) -> None:
    stop.wait()
    stop.is_heard = True  # before we look: what begins later tells itself
    tell_jobs()
