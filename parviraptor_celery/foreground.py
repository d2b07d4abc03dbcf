"""Runs a queue in this process, without Celery: for ``process_queue`` and for tests."""

from __future__ import annotations

import logging
import threading
from typing import Any

from django.db import connections

from . import registry, signals, sweep
from .conf import settings
from .dispatch import run_lanes, run_pool
from .drains import Budget
from .models import AbstractJob
from .states import CLAIMABLE

IDLE_SECONDS = 1.0

logger = logging.getLogger("parviraptor_celery")


class ForegroundWorker:
    """Works off one queue until ``stop`` is set, one job at a time."""

    def __init__(self, queue: type[AbstractJob], stop: threading.Event) -> None:
        self.queue, self.stop = queue, stop
        self.current: AbstractJob | None = None

    def run(self) -> int:
        """Run until told to stop; return the number of jobs run."""
        total = 0
        signals.job_claimed.connect(self._remember, sender=self.queue)
        signals.job_finished.connect(self._forget, sender=self.queue)
        try:
            while not self.stop.is_set():
                done = self.run_once()
                total += done
                if not done:
                    self.stop.wait(IDLE_SECONDS)
        finally:
            signals.job_claimed.disconnect(self._remember, sender=self.queue)
            signals.job_finished.disconnect(self._forget, sender=self.queue)
        return total

    def run_once(self) -> int:
        """Rescue what died and run everything that is due; return the number of jobs run."""
        done: list[int] = []

        def run_in(queue: type[AbstractJob], using: str) -> None:
            sweep.rescue(queue, using)
            if queue.dependent_fields is None:
                done.append(run_pool(queue, using, self._budget(), batch=1).rows)
            else:
                done.append(self._run_lanes(using))

        registry.for_each_queue(run_in, [self.queue])
        return sum(done)

    def tell_current_job(self) -> None:
        """Call ``on_job_terminated`` of the job that runs, if one does, in a thread of its own.

        This may be a signal handler in the middle of a query of the job: the connection of its
        thread is not to be touched now.
        """
        if self.current is not None:
            told = threading.Thread(target=_tell, args=(self.current,), name="job-terminated")
            told.start()

    def _run_lanes(self, using: str) -> int:
        rows, done = self.queue.rows(using), 0
        for status in CLAIMABLE:
            after = ""
            while heads := list(rows.lane_heads(status, after, settings.SWEEP_LANES)):
                for lane, _ in heads:
                    done += run_lanes(self.queue, using, [lane], self._budget()).rows
                    if self.stop.is_set():
                        return done
                after = heads[-1][0]
        return done

    def _budget(self) -> Budget:
        return Budget.endless(self.stop.is_set)

    def _remember(self, job: AbstractJob, **_: Any) -> None:
        self.current = job

    def _forget(self, **_: Any) -> None:
        self.current = None


def _tell(job: AbstractJob) -> None:
    try:
        job.on_job_terminated()
    except Exception:
        logger.exception("%s %s: on_job_terminated() raised", job._meta.label, job.pk)
    finally:
        connections.close_all()
