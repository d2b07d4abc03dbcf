"""Counts and ages for people and for monitoring; nothing here writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import Error

from . import pauses, pulses, registry, sweep
from .clock import local_now
from .conf import settings
from .models import AbstractJob, Pause, Tick
from .pulses import Pulse
from .states import JobStatus

OPEN_STATES = (JobStatus.NEW, JobStatus.PROCESSING, JobStatus.DEFERRED, JobStatus.FAILED)
MOST_SHOWN = 50


@dataclass(frozen=True)
class QueueHealth:
    """What is wrong with a queue, in rows, and how many pauses it has (of it, or of its lanes)."""

    name: str
    failed: int
    long_processing: int
    long_unprocessed: int
    paused: int = 0
    is_paused: bool = False
    """Whether the whole queue is."""

    @property
    def is_fine(self) -> bool:
        return not (self.failed or self.long_processing or self.long_unprocessed)

    def __str__(self) -> str:
        return (
            f"There are {self.failed} failed, {self.long_processing} long processing and "
            f"{self.long_unprocessed} long unprocessed {self.name}s."
        )


@dataclass(frozen=True)
class Health:
    """How all queues are, when the periodic work was last done, and what is wrong, in sentences."""

    queues: dict[str, QueueHealth]
    ages: dict[str, float | None]
    """Seconds since it last happened; None for never."""

    problems: list[str]

    @property
    def is_fine(self) -> bool:
        return not self.problems


def report() -> Health:
    """Return the health of every queue, of the sweeps and of what else is watched.

    Of the sweeps it is enough that somebody does them: beat, or the workers' own timers. What a
    database doesn't answer to is a problem like others.
    """
    problems: list[str] = []
    queues: dict[str, QueueHealth] = {}
    for queue in registry.all_queues():
        try:
            queues[queue._meta.label] = found = health(queue)
        except Error as error:
            problems.append(f"{queue._meta.label} can't be counted ({type(error).__name__}).")
        else:
            problems += [] if found.is_fine else [str(found)]
    return Health(queues, _ages(problems), problems)


def _ages(problems: list[str]) -> dict[str, float | None]:
    ages: dict[str, float | None] = {}
    askers = [_sweep_pulse(asker, f"{sweep.TICK}:{asker}") for asker in sweep.ASKERS]
    done_by = (sweep.TICK, f"{sweep.TICK}:{sweep.FOREGROUND}")
    needed = [_sweep_pulse("sweep", *done_by), *pulses.watched()]
    for pulse in [*askers, *needed]:
        try:
            ages[pulse.what] = age = pulse.age()
        except Error as error:
            problems.append(f"The last {pulse.what} can't be told ({type(error).__name__}).")
            continue
        if pulse in needed and pulse.is_missing(age):
            known = "There was no" if age is None else "The last"
            since = "yet" if age is None else f"was {age:.0f} seconds ago"
            problems.append(
                f"{known} {pulse.what} {since}; one is expected every {pulse.interval():g} seconds."
            )
    return ages


def _sweep_pulse(what: str, *names: str) -> Pulse:
    return Pulse(what, Tick, names, lambda: settings.DISPATCH_INTERVAL_SECONDS)


def health_of_all() -> list[QueueHealth]:
    """Return the health of every queue, over all of its databases."""
    return [health(queue) for queue in registry.all_queues()]


def health(queue: type[AbstractJob]) -> QueueHealth:
    """Count failed jobs, and those that have been processing or waiting for too long."""
    failed = processing = unprocessed = paused = 0
    is_paused = False
    moment = local_now()
    long_ago = moment - timedelta(minutes=queue.MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN)
    too_old = moment - timedelta(minutes=queue.MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN)
    for using in registry.aliases_of(queue):
        rows = queue.rows(using)
        failed += rows.failed().count()
        processing += rows.processing_since(long_ago).count()
        unprocessed += rows.waiting_since(too_old).count()
        whole, lanes = pauses.counts(queue, using)
        paused, is_paused = paused + whole + lanes, is_paused or whole
    return QueueHealth(queue.__name__, failed, processing, unprocessed, paused, is_paused)


def open_entries() -> list[tuple[type[AbstractJob], dict[str, int]]]:
    """Return for every queue how many of its jobs are in each open state."""
    return [(queue, _open_entries(queue)) for queue in registry.all_queues()]


def _open_entries(queue: type[AbstractJob]) -> dict[str, int]:
    # One question for each state: together they would read the finished rows, too.
    counts = {str(status.value): 0 for status in OPEN_STATES}
    for using in registry.aliases_of(queue):
        for status in OPEN_STATES:
            counts[status.value] += queue.rows(using).in_status(status).count()
    return counts


def open_pauses() -> list[tuple[type[AbstractJob], Pause]]:
    """Return the pauses of every queue, the oldest first; of each at most ``MOST_SHOWN``."""
    found: list[tuple[type[AbstractJob], Pause]] = []
    for queue in registry.all_queues():
        for using in registry.aliases_of(queue):
            found += [(queue, pause) for pause in pauses.oldest(queue, using, MOST_SHOWN)]
    return found


def progress() -> list[tuple[type[AbstractJob], Any]]:
    """Return the running jobs that tell how far they are; of each queue ``MOST_SHOWN``."""
    found: list[tuple[type[AbstractJob], Any]] = []
    for queue in registry.all_queues():
        for using in registry.aliases_of(queue):
            found += [(queue, job) for job in queue.rows(using).with_progress()[:MOST_SHOWN]]
    return found
