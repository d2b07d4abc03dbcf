"""Behaviour 5: workers that die, and their leases."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from itertools import pairwise
from typing import Any

import pytest
from celery import Celery
from django.core.management import call_command
from django.db import transaction

from parviraptor_celery.test import crash_at, run_queue, virtual_clock
from tests.integration.queue_contract.common import (
    CONCURRENT,
    QUEUES,
    Bodies,
    kicks_of,
    reloaded,
    statuses,
)
from tests.integration.threads import at_once
from tests.supervision import processes
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob

pytestmark = pytest.mark.usefixtures("one_database", "celery")

SECONDS = 20.0


@QUEUES
@pytest.mark.parametrize("point", ["claimed", "processed"])
def test_behaviour_5_a_worker_that_dies_gives_its_job_back_when_its_lease_has_run_out(
    queue: Any, point: str, bodies: Bodies
) -> None:
    job, behind = queue.enqueue(), queue.enqueue()
    ran = bodies(queue)
    with virtual_clock() as clock:
        with crash_at(point):
            run_queue(queue)
        clock.advance(seconds=50)
        run_queue(queue)
        assert reloaded(job).status == "PROCESSING", "its lease holds"
        clock.advance(seconds=15)
        run_queue(queue)
    assert statuses(queue) == ["PROCESSED"] * 2
    assert ran.count(job.pk) == (2 if point == "processed" else 1)
    assert ran.count(behind.pk) == 1
    assert (reloaded(job).worker_deaths, reloaded(job).error_count) == (1, 0)
    assert reloaded(behind).worker_deaths == 0


@QUEUES
@pytest.mark.parametrize("deaths", [1, 3])
def test_behaviour_5_a_job_that_keeps_killing_workers_fails(
    queue: Any, deaths: int, using: str, bodies: Bodies, settings: Any
) -> None:
    if deaths != 3:  # the default
        settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "MAX_WORKER_DEATHS": deaths}
    job = queue.enqueue()
    ran = bodies(queue)
    with virtual_clock() as clock:
        for death in range(1, deaths + 1):
            with crash_at("processed"):
                run_queue(queue)
            assert reloaded(job).status == "PROCESSING"
            clock.advance(minutes=2)
            if death < deaths:
                continue
            run_queue(queue)
    assert len(ran) == deaths
    assert (reloaded(job).status, reloaded(job).worker_deaths) == ("FAILED", deaths)
    assert f"died {deaths} times" in reloaded(job).error_message


def test_behaviour_5_jobs_that_were_claimed_and_not_begun_pay_nothing(
    celery: Celery, bodies: Bodies
) -> None:
    with transaction.atomic(using=FreeJob.objects.db):
        jobs = [FreeJob.enqueue() for _ in range(5)]
    task, about = kicks_of(celery)[0]
    leased: list[int] = []
    ran = bodies(FreeJob, lambda job: leased.append(statuses(FreeJob).count("PROCESSING")))
    with virtual_clock() as clock:
        with crash_at("processed"):
            celery.tasks[task](**about)
        assert leased == [5], "they had been claimed together"
        clock.advance(minutes=2)
        run_queue(FreeJob)
    assert Counter(ran) == {job.pk: 1 + (job.pk == jobs[0].pk) for job in jobs}
    assert [reloaded(job).worker_deaths for job in jobs] == [1, 0, 0, 0, 0]


@CONCURRENT  # in SQLite the transaction of the body is the only one that writes
def test_behaviour_5_the_lease_of_a_job_of_an_atomic_queue_is_renewed_likewise(
    using: str, bodies: Bodies, settings: Any
) -> None:
    test_behaviour_5_a_heartbeat_renews_the_lease_every_third_of_it(
        AtomicJob, using, bodies, settings
    )


@pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
def test_behaviour_5_a_heartbeat_renews_the_lease_every_third_of_it(
    queue: Any, using: str, bodies: Bodies, settings: Any
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "LEASE_SECONDS": 1.5}
    queue.enqueue()
    seen: list[Any] = []

    def live_longer_than_the_lease(job: Any) -> None:
        [watched] = at_once(watch)
        seen.extend(watched)

    def watch() -> list[Any]:
        rows = [queue.objects.get()]

        def has_changed() -> bool:
            row = queue.objects.get()
            if row.lease_until != rows[-1].lease_until:
                rows.append(row)
            return len(rows) == 5

        processes.wait_until(has_changed, SECONDS, "four heartbeats")
        assert run_queue(queue) == 0, "it is not taken away"
        return rows

    ran = bodies(queue, live_longer_than_the_lease)
    run_queue(queue)
    assert len(ran) == 1
    leases = [row.lease_until for row in seen]
    pauses = [later - earlier for earlier, later in pairwise(leases)]
    assert sorted(pauses)[0] > timedelta(seconds=0.45)
    assert sorted(pauses)[1] < timedelta(seconds=0.9)
    assert leases[-1] - leases[0] > timedelta(seconds=1.5)
    assert len({row.modification_date for row in seen}) == 1, "no transition"
    assert statuses(queue) == ["PROCESSED"]
    assert queue.objects.get().worker_deaths == 0


@pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
def test_behaviour_5_handing_back_at_shutdown_costs_nothing(
    queue: Any, bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, behind = queue.objects.create(), queue.objects.create()

    def be_told_to_stop(running: Any) -> None:
        running.result = running.attempt
        if running.attempt == 1 and running.pk == job.pk:
            os.kill(os.getpid(), signal.SIGTERM)
            processes.wait_until(lambda: is_back(job), SECONDS, "the job to be handed back")

    def is_back(one: Any) -> bool:
        return bool(reloaded(one).status == "NEW")

    def hand_back(running: Any) -> None:
        assert running.update_job_for_being_resumed()

    ran = bodies(queue, be_told_to_stop)
    monkeypatch.setattr(queue, "on_job_terminated", hand_back)
    with own_signal_handlers():
        call_command("process_queue", "testapp", queue.__name__, stdout=StringIO())
    assert ran == [job.pk]
    row = reloaded(job)
    assert (row.status, row.error_count, row.worker_deaths, row.run_after) == ("NEW", 0, 0, None)
    assert row.result is None, "what that run did is not recorded"
    assert reloaded(behind).status == "NEW"
    run_queue(queue)
    assert ran == [job.pk, job.pk, behind.pk]
    assert [reloaded(one).worker_deaths for one in (job, behind)] == [0, 0]


@contextmanager
def own_signal_handlers() -> Iterator[None]:
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
