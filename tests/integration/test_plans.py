"""The hot statements read a few rows of a table that would tempt a planner to read all of it.

What is asserted is what the database read, however it planned to: no timings, no texts of plans.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from parviraptor_celery import cleanup, kicks, sweep
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from tests.integration.reading import far_away, lane_of_number, learn, multiply, reads
from tests.testapp.models import FreeJob, LaneJob

EACH = 5_000
FEW = 150
"""Of 20,000 rows; on PostgreSQL pages count, too, and on SQLite a hundred instructions are one."""


@pytest.fixture(autouse=True)
def _workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves, and the bodies do nothing."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    for queue in (LaneJob, FreeJob):
        monkeypatch.setattr(queue, "process", lambda _: None)


def budget(rows: int) -> Budget:
    return Budget(rows, float("inf"))


STATISTICS = ["fresh", "of an empty table", "fresh, generic plans"]


@pytest.fixture(params=STATISTICS)
def statistics(request: pytest.FixtureRequest, using: str) -> Iterator[str]:
    """What the planner believes; on PostgreSQL also with plans made for any parameters."""
    kind: str = request.param
    if "generic" in kind and using == "postgresql":
        with prepared_statements(using):
            yield kind
    else:
        yield kind


@contextmanager
def prepared_statements(using: str) -> Iterator[None]:
    """Let PostgreSQL plan each statement once for whatever parameters, as it may after a while."""
    connection = connections[using]
    options = connection.settings_dict["OPTIONS"]
    prepared = {**options, "server_side_binding": True, "prepare_threshold": 0}
    connection.close()
    connection.settings_dict["OPTIONS"] = prepared
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET plan_cache_mode = force_generic_plan")
        yield
    finally:
        connection.close()
        connection.settings_dict["OPTIONS"] = options


def fill(using: str, statistics: str, queue: Any) -> Any:
    """Fill a table with jobs of every kind, and return the first one that may run."""
    vacuum = connections[using].vendor == "postgresql"
    if vacuum:
        with connections[using].cursor() as cursor:  # it must not learn by itself meanwhile
            cursor.execute(f"ALTER TABLE {queue._meta.db_table} SET (autovacuum_enabled = false)")
    if statistics == "of an empty table":
        learn(using, queue)
    lane = {} if queue is FreeJob else {"lane": lane_of_number(using)}
    done = queue.enqueue(using=using)
    done.claim()
    done.rest("PROCESSED")
    multiply(done, EACH)
    multiply(done, EACH, **lane)
    first = queue.enqueue(using=using)
    waiting = queue.enqueue(using=using)
    multiply(waiting, EACH)
    multiply(waiting, EACH, run_after=far_away(using), **lane)
    if statistics.startswith("fresh"):
        learn(using, queue)
    return first


@contextmanager
def small(using: str, queue: Any, *, most: int = FEW, what: str = "") -> Iterator[None]:
    """Run a block that reads fewer rows than ``most``, and no whole table."""
    with reads(using, queue) as read:
        yield
    assert read.count < most, (what, read)
    if using == "postgresql":
        assert read.whole_tables == 0, (what, read)


def test_of_a_lane(using: str, statistics: str) -> None:
    first = fill(using, statistics, LaneJob)
    rows = LaneJob.rows(using)
    learned = {"most": 400} if using == "default" else {}  # of three jobs
    looks: list[Callable[[], object]] = [
        lambda: rows.candidate(first.lane, "NEW"),
        lambda: rows.candidate(first.lane, "DEFERRED"),
        lambda: list(rows.obstacles(first.lane)[:1]),
        lambda: rows.is_attended(first.lane, first.pk),
        lambda: list(rows.expired()),
        lambda: rows.startable({first.lane: first.pk}),
        lambda: rows.explained(first.pk, first.lane),
    ]
    for look in looks:
        look()
        with small(using, LaneJob, most=40, what=inspect.getsource(look)):
            look()
    with small(using, LaneJob, **learned):  # a claim, hand-offs, and an end
        assert run_lanes(LaneJob, using, [first.lane], budget(3)).rows == 3
    with small(using, LaneJob):
        assert LaneJob.enqueue(using=using).pk


def test_of_a_row_of_its_own(using: str, statistics: str) -> None:
    job = fill(using, statistics, LaneJob)
    steps: list[Callable[[], Any]] = [job.claim, job.renew, job.keep_lease, job.put_back]
    for step in steps:
        with small(using, LaneJob, most=60):
            assert step()


def test_of_an_independent_queue(using: str, statistics: str) -> None:
    first = fill(using, statistics, FreeJob)
    rows = FreeJob.rows(using)
    FreeJob.rows(using).filter(pk=first.pk).update(run_after=timezone.now() - timedelta(hours=1))
    looks: list[Callable[[], object]] = [
        lambda: list(rows.at_once()[:5]),
        lambda: list(rows.come_due()[:5]),
        lambda: rows.next_ids(5),
        lambda: rows.deferred().exists(),
        lambda: list(rows.expired()),
        lambda: kicks.send_for_pool(FreeJob, using),
    ]
    for look in looks:
        look()
        with small(using, FreeJob, most=80, what=inspect.getsource(look)):
            look()
    with small(using, FreeJob, most=400):
        assert run_pool(FreeJob, using, budget(3)).rows == 3
    with small(using, FreeJob):
        assert FreeJob.enqueue(using=using).pk


def test_of_a_sweep_costs_one_look_per_lane(using: str, statistics: str) -> None:
    fill(using, statistics, LaneJob)
    rows = LaneJob.rows(using)
    with small(using, LaneJob, most=20 * 20):
        assert len(list(rows.lane_heads("NEW", after="", limit=20))) == 20
    sweep.rescue(LaneJob, using)
    with small(using, LaneJob, most=40):
        sweep.rescue(LaneJob, using)
    with small(using, LaneJob, most=40):
        sweep.adopt(LaneJob, using)


@pytest.mark.parametrize("queue", [LaneJob, FreeJob])
def test_of_cleaning_when_nothing_is_old(using: str, statistics: str, queue: Any) -> None:
    fill(using, statistics, queue)
    with small(using, queue, most=40):
        assert cleanup.clean(queue, using) == 0


@pytest.mark.parametrize("queue", [LaneJob, FreeJob])
def test_of_monitoring_reads_what_is_open_only(using: str, queue: Any) -> None:
    fill(using, "fresh", queue)
    with small(using, queue, most=60):
        assert queue.rows(using).failed().count() == 0
    with small(using, queue, most=60):
        assert queue.rows(using).in_status("PROCESSING").count() == 0
    with small(using, queue, most=60):
        assert queue.rows(using).processing_since(timezone.now()).count() == 0
    with small(using, queue, most=60):
        assert queue.rows(using).with_progress().first() is None
