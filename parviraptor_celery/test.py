"""For users' own tests: run a queue, with one worker or many, and see that it keeps its order.

>>> class Entries(JobEntryFactory):
...     def create_shipment(self):
...         return [Shipment(warehouse=name) for name in ("Graz", "Linz") * 5]
>>> class AllQueues(make_test_case_for_all_queues(Entries)):
...     pass

Nobody has to wait (``virtual_clock``), and workers can be made to die (``crash_at``).
docs/testing.md tells the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from typing import Any, ClassVar

from django.apps import apps
from django.db import router
from django.test import TransactionTestCase

from . import registry
from .bodies import Body, disorder, recorded_bodies
from .crash_points import CRASH_POINTS, Crash, CrashPointNotReached, crash_at
from .crews import run_queue, run_queue_to_the_end
from .jobs import AbstractJob
from .states import TRANSITIONS, JobStatus
from .virtual_clock import VirtualClock, current, virtual_clock

__all__ = [
    "CRASH_POINTS",
    "FINAL",
    "Body",
    "Crash",
    "CrashPointNotReached",
    "JobEntryFactory",
    "QueueTestCase",
    "VirtualClock",
    "crash_at",
    "make_test_case_for_all_queues",
    "run_queue",
    "virtual_clock",
]

CONCURRENT_WORKERS = 8
FINAL = frozenset(status for status, following in TRANSITIONS.items() if not following)
"""``PROCESSED``, ``SQUASHED`` and ``IGNORED``: what ends well."""

_RESTING = FINAL | {JobStatus.FAILED}


class QueueTestCase(TransactionTestCase):
    """A test case that runs queues as workers do, in threads and without a broker."""

    def process_queue(
        self,
        JobClass: type[AbstractJob],
        jobs: Iterable[AbstractJob],
        number_of_threads: int,
        create_jobs: bool = True,
        *,
        using: str | None = None,
        advance_clock: bool = False,
        ends: Collection[str] = FINAL,
    ) -> list[Body]:
        """Run ``jobs`` with so many workers at once; assert that all ended well, in order.

        That goes for jobs that they enqueue too, and for any others of the queue that wait.

        Args:
            jobs: instances of ``JobClass``, inserted here unless ``create_jobs`` is False.
            number_of_threads: workers, each with a database connection of its own.
            using: the database of the jobs; by default where the router writes them.
            advance_clock: set a ``virtual_clock()`` forward to whatever is due later, so that
                temporary failures are tried again. Without it, they fail the test.
            ends: the states that a job may end in.

        Returns the calls of ``process()``, in the order in which they began.
        """
        using = using or router.db_for_write(JobClass)
        jobs, rows = list(jobs), JobClass.rows(using)
        if create_jobs:
            rows.bulk_create(jobs)
        at_rest = rows.filter(status__in=_RESTING).values_list("pk", flat=True)
        before = set(at_rest)
        there = set(rows.exclude(pk__in=before).values_list("pk", flat=True))
        with recorded_bodies(JobClass) as bodies:
            _run(JobClass, number_of_threads, using, advance_clock)
        after = list(rows.exclude(pk__in=before).order_by("pk"))
        if unfinished := [_complaint(job) for job in after if job.status not in ends]:
            wanted = " or ".join(sorted(ends, key=lambda status: status != JobStatus.PROCESSED))
            listing = "\n  ".join(unfinished)
            self.fail(f"these {JobClass.__name__}s are not {wanted}:\n  {listing}")
        self.assertGreaterEqual(
            len(after), len(jobs), f"not every {JobClass.__name__} was there to run"
        )
        self.assert_order(bodies, late={body.pk for body in bodies} - there)
        return bodies

    def assert_order(self, bodies: list[Body], late: Collection[int] = ()) -> None:
        """Assert that no two bodies of a lane overlapped, and that ids rose within each.

        Jobs that were deferred may be overtaken, and so may those in ``late``: the ids of jobs
        that were inserted when others were running.
        """
        if complaint := disorder(bodies, late):
            self.fail(complaint)


class JobEntryFactory:
    """Creates entries for queues: derive from it, and write one method per job class.

    The method for ``LandingFeeInvoice`` is ``create_landing_fee_invoice()``; where two apps have
    a queue of that name, ``create_billing_landing_fee_invoice()``. It returns unsaved instances,
    or saves them itself and returns None.
    """

    def create(self, job_class: type[AbstractJob]) -> None:
        """Create the entries of ``job_class``.

        Raises:
            NotImplementedError: there is no method for it.
            TypeError: the method returned entries of another queue.
        """
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", job_class.__name__)
        names = f"create_{job_class._meta.app_label}_{snake}".lower(), f"create_{snake}".lower()
        method: Callable[[], Iterable[AbstractJob] | None] | None
        method = next((getattr(self, name) for name in names if hasattr(self, name)), None)
        if method is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no method {names[1]}() that creates entries of "
                f"{job_class._meta.label}. Write one, or pass job_classes_to_ignore."
            )
        created = list(method() or ())
        if strangers := {type(job) for job in created if not isinstance(job, job_class)}:
            raise TypeError(
                f"{type(self).__name__}.{method.__name__}() returned entries of "
                f"{strangers.pop().__qualname__}, wanted were those of {job_class._meta.label}. "
                f"Where two queues have one name, write {names[0]}() for each."
            )
        job_class.rows(router.db_for_write(job_class)).bulk_create(created)


def make_test_case_for_all_queues(
    factory: type[JobEntryFactory] | JobEntryFactory | None = None,
    job_classes_to_ignore: Iterable[type[AbstractJob]] | None = None,
    **static_fields: Any,
) -> type[QueueTestCase]:
    """Return a test case that runs every queue of the project, one worker first, then many.

    Args:
        factory: creates the entries; without one, do so in ``setUp()``.
        job_classes_to_ignore: queues that can't run by themselves.
        static_fields: class attributes of the test case, such as ``fixtures``.

    The names of the queues that it covers, in the order in which they are defined, are in its
    attribute ``queues``, a list.
    """
    ignored = set(job_classes_to_ignore or ())
    known = set(registry.all_queues()) - ignored
    job_classes = [model for model in apps.get_models() if model in known]  # as they are defined
    entries = factory() if isinstance(factory, type) else factory

    class AllQueuesTestCase(QueueTestCase):
        queues: ClassVar = [queue.__name__ for queue in job_classes]

        def test_can_process_queue_sequentially(self) -> None:
            self._process_all_queues(1)

        def test_can_process_queue_concurrently(self) -> None:
            self._process_all_queues(CONCURRENT_WORKERS)

        def _process_all_queues(self, workers: int) -> None:
            for job_class in job_classes:
                with self.subTest(job_class.__name__):
                    if entries is not None:
                        entries.create(job_class)
                    jobs = list(job_class.rows(router.db_for_write(job_class)))
                    self.assertGreater(len(jobs), 0, f"no {job_class.__name__} was created")
                    self.process_queue(job_class, jobs, workers, create_jobs=False)

    for name, value in static_fields.items():
        setattr(AllQueuesTestCase, name, value)
    return AllQueuesTestCase


def _run(job_class: type[AbstractJob], threads: int, using: str, advance_clock: bool) -> None:
    if not advance_clock:
        run_queue(job_class, threads, using=using)
        return
    here = current()
    with virtual_clock() if here is None else nullcontext(here) as clock:
        run_queue_to_the_end(job_class, threads, using, clock)


def _complaint(job: AbstractJob) -> str:
    due = f", due {job.run_after}" if job.status == JobStatus.NEW and job.run_after else ""
    message = f": {job.error_message}" if job.error_message else ""
    return f"{job.pk} is {job.status}{due}{message}"
