"""Behaviours 6 and 7: what waits costs nothing, and ticks of beat may come as they like."""

from __future__ import annotations

import inspect
import time
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parviraptor_celery.test import crash_at, run_queue, virtual_clock
from tests.integration.queue_contract.common import (
    DISPATCH,
    QUEUES,
    Bodies,
    kicks_of,
    reloaded,
    statuses,
)
from tests.integration.threads import at_once
from tests.testapp.models import LaneJob
from tests.unit.conftest import using_celery

pytestmark = pytest.mark.usefixtures("one_database", "celery")

HOUR = timedelta(hours=1)


def in_a_worker(app: Celery, task: str, **about: Any) -> Any:
    """Run a task in this thread, which belongs to another worker."""
    with using_celery(app):
        return app.tasks[task](**about)


@pytest.mark.parametrize("status", ["NEW", "FAILED"])
def test_behaviour_6_waiting_rows_behind_a_blocked_head_slow_nobody_down(
    using: str, status: str, bodies: Bodies
) -> None:
    """Also not the sweep. Two to the power of 17 rows here; the benchmarks have a million."""
    bodies(LaneJob)
    head = LaneJob.objects.create(shop="blocked", run_after=timezone.now() + timedelta(days=1))
    LaneJob.objects.create(shop="blocked", status=status)
    before = cost_of_one(using)
    columns = [field.column for field in LaneJob._meta.concrete_fields if not field.primary_key]
    listing, table = ", ".join(columns), LaneJob._meta.db_table
    with connections[using].cursor() as cursor:
        for _ in range(17):
            cursor.execute(
                f"INSERT INTO {table} ({listing}) SELECT {listing} FROM {table} "
                f"WHERE shop = 'blocked' AND id > {head.pk}"
            )
        cursor.execute({"mariadb": f"ANALYZE TABLE {table}"}.get(using, "ANALYZE"))
    assert LaneJob.objects.filter(shop="blocked").count() > 100_000
    after = cost_of_one(using)
    assert after[0] == before[0], "statements"
    assert after[1] == before[1], "frames of the stack"
    assert after[2] < before[2] * 5 + 0.005, "seconds"


def cost_of_one(using: str) -> tuple[int, int, float]:
    """Return statements, depth of the stack, and least seconds that a job of a free lane needs."""
    costs: list[tuple[int, int, float]] = []
    depths: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LaneJob, "process", lambda job: depths.append(len(inspect.stack(0))))
        for _ in range(5):
            LaneJob.enqueue(shop="free")
            with CaptureQueriesContext(connections[using]) as queries:
                begun = time.perf_counter()
                run_queue(LaneJob)
                seconds = time.perf_counter() - begun
            costs.append((len(queries), depths[-1], seconds))
    assert len(depths) == 5
    return min(cost[0] for cost in costs), max(depths), min(cost[2] for cost in costs)


@QUEUES
def test_behaviour_7_a_tick_of_beat_may_come_twice(
    queue: Any, celery: Celery, bodies: Bodies
) -> None:
    ran = bodies(queue)
    queue.objects.bulk_create([queue()])
    ticks = at_once(*[lambda: in_a_worker(celery, DISPATCH)] * 2)
    assert ticks.count(True) == 1, "one of two does the work"
    kicks = kicks_of(celery)
    assert kicks
    celery.tasks[DISPATCH](force=True)
    kicks += kicks_of(celery)
    for task, about in kicks * 2:
        celery.tasks[task](**about)
    celery.tasks["parviraptor_celery.clean_jobs"]()
    celery.tasks["parviraptor_celery.clean_jobs"]()
    assert (len(ran), statuses(queue)) == (1, ["PROCESSED"])


@QUEUES
def test_behaviour_7_a_tick_of_beat_may_come_late(
    queue: Any, celery: Celery, bodies: Bodies
) -> None:
    dies, lost, due_later = queue.enqueue(), queue.enqueue(), queue.enqueue(run_after=HOUR)
    ran = bodies(queue)
    with virtual_clock() as clock:
        with crash_at("processed"):
            run_queue(queue)
        kicks_of(celery)
        clock.advance(days=3)
        celery.tasks[DISPATCH]()
        for task, about in kicks_of(celery):
            celery.tasks[task](**about)
    assert statuses(queue) == ["PROCESSED"] * 3
    assert sorted(ran) == [dies.pk, dies.pk, lost.pk, due_later.pk]


@QUEUES
def test_behaviour_7_a_kick_that_comes_twice_does_nothing(
    queue: Any, celery: Celery, bodies: Bodies
) -> None:
    ran = bodies(queue)
    job = queue.enqueue()
    [(task, about)] = kicks_of(celery)
    at_once(*[lambda: in_a_worker(celery, task, **about)] * 3)
    assert (ran, reloaded(job).attempt) == ([job.pk], 1)
