"""Runs a queue in this process, without Celery: for ``process_queue`` and for tests."""

from __future__ import annotations

import logging
import threading
import time

from django.db import Error

from . import registry, stopping, sweep
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

    def run(self) -> int:
        """Run until told to stop; return the number of jobs run."""
        total = 0
        noted_at = float("-inf")
        while not self.stop.is_set():
            done = self.run_once()
            if time.monotonic() - noted_at > settings.DISPATCH_INTERVAL_SECONDS:
                noted_at = time.monotonic()
                self._note()
            total += done
            if not done:
                self.stop.wait(IDLE_SECONDS)
        return total

    def run_once(self) -> int:
        """Rescue what died and run everything that is due; return the number of jobs run."""
        done: list[int] = []
        registry.for_each_queue(lambda _, using: done.append(self.run_in(using)), [self.queue])
        return sum(done)

    def run_in(self, using: str) -> int:
        """Like ``run_once()``, in one database; its errors are raised."""
        sweep.rescue(self.queue, using)
        if self.queue.dependent_fields is None:
            return run_pool(self.queue, using, Budget.endless(self.stop.is_set), most=1).rows
        return self._run_lanes(using)

    def tell_current_job(self) -> None:
        """Call ``on_job_terminated`` of the job that runs, if one does, in a thread of its own."""
        stopping.tell_jobs(self.queue)

    def _note(self) -> None:
        try:
            sweep.note_asker(sweep.FOREGROUND)
        except Error as error:  # the jobs may be in another database, which is there
            logger.warning("that process_queue lives was not noted (%s)", type(error).__name__)

    def _run_lanes(self, using: str) -> int:
        rows, done = self.queue.rows(using), 0
        for status in CLAIMABLE:
            after = ""
            while heads := list(rows.lane_heads(status, after, settings.SWEEP_LANES)):
                for lane in rows.startable(dict(heads)):
                    # No more than a kick may: a lane that never ends must not keep the others.
                    budget = Budget(settings.KICK_JOBS, settings.KICK_SECONDS, self.stop.is_set)
                    done += run_lanes(self.queue, using, [lane], budget).rows
                    if self.stop.is_set():
                        return done
                after = heads[-1][0]
        return done
