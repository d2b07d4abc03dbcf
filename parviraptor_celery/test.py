"""For users' own tests: run a queue, with one worker or many, and see that it keeps its order.

>>> class Entries(JobEntryFactory):
...     def create_shipment(self):
...         return [Shipment(warehouse=name) for name in ("Graz", "Linz") * 5]
>>> class AllQueues(make_test_case_for_all_queues(Entries)):
...     pass
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from django.db import connections, router
from django.test import TransactionTestCase

from . import broker, registry
from .foreground import ForegroundWorker
from .jobs import AbstractJob
from .states import CLAIMABLE, JobStatus

__all__ = ["JobEntryFactory", "QueueTestCase", "make_test_case_for_all_queues"]

CONCURRENT_WORKERS = 8
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Body:
    """One call of ``process()``: of which job, in which lane, from when until when (seconds)."""

    pk: int
    lane: str | None
    begun: float
    ended: float


class QueueTestCase(TransactionTestCase):
    """A test case that runs queues as workers do, in threads and without a broker."""

    def process_queue(
        self,
        JobClass: type[AbstractJob],
        jobs: Iterable[AbstractJob],
        number_of_threads: int,
        create_jobs: bool = True,
    ) -> list[Body]:
        """Run ``jobs`` with so many workers at once; assert that each is PROCESSED, in order.

        Args:
            jobs: instances of ``JobClass``, inserted here unless ``create_jobs`` is False.
            number_of_threads: workers, each with a database connection of its own.

        Returns the calls of ``process()``, in the order in which they began.
        """
        jobs, rows = list(jobs), JobClass.rows(router.db_for_write(JobClass))
        if create_jobs:
            rows.bulk_create(jobs)
        before = set(rows.filter(status=JobStatus.PROCESSED).values_list("pk", flat=True))
        # The workers here find the jobs by themselves, also those that other jobs enqueue.
        with broker.silence(), recorded_bodies(JobClass) as bodies:
            _run_workers(JobClass, number_of_threads)
        after = dict(rows.exclude(pk__in=before).values_list("pk", "status"))
        unfinished = {pk: status for pk, status in after.items() if status != JobStatus.PROCESSED}
        self.assertEqual(unfinished, {}, f"these {JobClass.__name__}s are not PROCESSED")
        self.assertEqual(len(after), len(jobs), f"not every {JobClass.__name__} was there to run")
        self.assert_order(bodies)
        return bodies

    def assert_order(self, bodies: list[Body]) -> None:
        """Assert that no two bodies of a lane overlapped, and that ids rose within each."""
        last: dict[str, Body] = {}
        for body in sorted(bodies, key=lambda item: item.begun):
            if body.lane is None:
                continue
            if previous := last.get(body.lane):
                self.assertGreaterEqual(
                    body.begun, previous.ended, f"{body} and {previous} overlap"
                )
                self.assertGreater(body.pk, previous.pk, f"{body} ran after {previous}")
            last[body.lane] = body


class JobEntryFactory:
    """Creates entries for queues: derive from it, and write one method per job class.

    The method for ``LandingFeeInvoice`` is ``create_landing_fee_invoice()``. It returns unsaved
    instances, or saves them itself and returns None.
    """

    def create(self, job_class: type[AbstractJob]) -> None:
        """Create the entries of ``job_class``.

        Raises:
            NotImplementedError: there is no method for it.
        """
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", job_class.__name__)
        method: Callable[[], Iterable[AbstractJob] | None] | None
        method = getattr(self, name := f"create_{snake.lower()}", None)
        if method is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no method {name}() that creates entries of "
                f"{job_class._meta.label}. Write one, or pass job_classes_to_ignore."
            )
        if created := method():
            job_class.rows(router.db_for_write(job_class)).bulk_create(list(created))


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

    The names of the queues it covers are in its attribute ``queues``.
    """
    ignored = set(job_classes_to_ignore or ())
    job_classes = [queue for queue in registry.all_queues() if queue not in ignored]
    entries = factory() if isinstance(factory, type) else factory

    class AllQueuesTestCase(QueueTestCase):
        queues = tuple(queue.__name__ for queue in job_classes)

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


@contextmanager
def recorded_bodies(job_class: type[AbstractJob]) -> Iterator[list[Body]]:
    """Record every call of ``job_class.process()`` inside the block."""
    bodies: list[Body] = []
    process = job_class.process

    def recording(self: AbstractJob) -> None:
        begun = time.monotonic()
        try:
            process(self)
        finally:
            bodies.append(Body(self.pk, self.lane, begun, time.monotonic()))

    with mock.patch.object(job_class, "process", recording):
        yield bodies


def _run_workers(job_class: type[AbstractJob], number: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    if number == 1:
        _work_off(job_class, deadline)
        return
    with ThreadPoolExecutor(number) as pool:
        workers = [pool.submit(_work_off_in_thread, job_class, deadline) for _ in range(number)]
        for worker in workers:
            worker.result()


def _work_off_in_thread(job_class: type[AbstractJob], deadline: float) -> None:
    try:
        _work_off(job_class, deadline)
    finally:
        connections.close_all()


def _work_off(job_class: type[AbstractJob], deadline: float) -> None:
    """Run what is due until nothing is, or the time is over."""
    worker = ForegroundWorker(job_class, threading.Event())
    rows = job_class.rows(router.db_for_write(job_class))
    while worker.run_once() or rows.filter(status__in=CLAIMABLE).due().exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{job_class.__name__}s were not worked off in time")
