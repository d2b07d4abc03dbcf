"""Workers that die where a test says: each point is reached, and nothing is cleaned up there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from django.db import connections, transaction

from parviraptor_celery import sweep
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from parviraptor_celery.pace import Pace
from parviraptor_celery.statements import database_time
from parviraptor_celery.test import (
    CRASH_POINTS,
    Crash,
    CrashPointNotReached,
    crash_at,
    run_queue,
    virtual_clock,
)
from tests.integration.threads import at_once
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob, Note

QUEUES = pytest.mark.parametrize("queue", [FifoJob, LaneJob, AtomicJob, FreeJob])
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kicked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    kicks: list[dict[str, Any]] = []
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **about: kicks.append(about))
    return kicks


@pytest.fixture(autouse=True)
def _no_kicks(kicked: list[dict[str, Any]]) -> None:
    """These tests are the workers themselves."""


def enqueue(queue: Any, using: str, count: int = 2) -> None:
    with transaction.atomic(using=using):
        for _ in range(count):
            queue.enqueue(using=using)


def work(queue: Any, using: str) -> None:
    """Do what a worker does, sweep included."""
    sweep.rescue(queue, using)
    if queue.dependent_fields is None:
        run_pool(queue, using, Budget.endless())
        return
    lanes = queue.rows(using).values_list("lane", flat=True)
    run_lanes(queue, using, sorted(set(lanes)), Budget.endless())


def statuses(queue: Any, using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))


# What is there after a crash, in each kind of queue


@QUEUES
def test_a_crash_before_the_commit_leaves_no_job(
    using: str, queue: Any, kicked: list[dict[str, Any]]
) -> None:
    with crash_at("enqueued"):
        enqueue(queue, using)
    assert (statuses(queue, using), kicked) == ([], [])


@QUEUES
def test_so_it_does_in_bulk(using: str, queue: Any, kicked: list[dict[str, Any]]) -> None:
    with crash_at("enqueued"), transaction.atomic(using=using):
        queue.enqueue_many([queue(), queue()], using=using)
    assert (statuses(queue, using), kicked) == ([], [])


@QUEUES
def test_a_crash_after_the_commit_leaves_a_job_that_nobody_was_kicked_for(
    using: str, queue: Any, kicked: list[dict[str, Any]]
) -> None:
    with crash_at("committed"):
        enqueue(queue, using)
    assert (statuses(queue, using), kicked) == (["NEW", "NEW"], [])
    with crash_at("committed"):
        queue.enqueue_many([queue(), queue()], using=using)
    assert kicked == []
    work(queue, using)
    assert statuses(queue, using) == ["PROCESSED"] * 4


@QUEUES
def test_a_crash_before_the_body_leaves_the_job_leased_until_its_lease_runs_out(
    using: str, queue: Any
) -> None:
    enqueue(queue, using)
    with virtual_clock() as clock:
        with crash_at("claimed") as crash:
            work(queue, using)
        assert crash.has_happened
        assert statuses(queue, using)[0] == "PROCESSING"
        assert not Note.objects.using(using).exists()
        work(queue, using)
        assert "PROCESSING" in statuses(queue, using)
        clock.advance(minutes=2)
        work(queue, using)
    assert statuses(queue, using) == ["PROCESSED", "PROCESSED"]
    assert Note.objects.using(using).count() == 2


@QUEUES
def test_a_crash_before_the_outcome_is_written_repeats_the_body(using: str, queue: Any) -> None:
    enqueue(queue, using)
    with virtual_clock() as clock:
        with crash_at("processed"):
            work(queue, using)
        # The body and the outcome of an atomic job are one transaction.
        assert Note.objects.using(using).count() == (0 if queue.atomic else 1)
        assert statuses(queue, using)[0] == "PROCESSING"
        clock.advance(minutes=2)
        work(queue, using)
    assert statuses(queue, using) == ["PROCESSED", "PROCESSED"]
    assert Note.objects.using(using).count() == (2 if queue.atomic else 3)


@QUEUES
def test_a_crash_after_the_outcome_repeats_nothing(using: str, queue: Any) -> None:
    enqueue(queue, using)
    with virtual_clock() as clock:
        with crash_at("settled"):
            work(queue, using)
        assert statuses(queue, using)[0] == "PROCESSED"
        assert Note.objects.using(using).count() == 1
        clock.advance(minutes=2)
        work(queue, using)
    assert statuses(queue, using) == ["PROCESSED", "PROCESSED"]
    assert Note.objects.using(using).count() == 2


@QUEUES
def test_a_crash_after_the_rescue_leaves_the_job_to_the_next_sweep(using: str, queue: Any) -> None:
    enqueue(queue, using, 1)
    with virtual_clock() as clock:
        with crash_at("claimed"):
            work(queue, using)
        clock.advance(minutes=2)
        with crash_at("rescued"):
            work(queue, using)
        assert statuses(queue, using) == ["NEW"]
        work(queue, using)
    assert statuses(queue, using) == ["PROCESSED"]


def test_every_point_has_its_test_above() -> None:
    source = Path(__file__).read_text()
    assert [point for point in CRASH_POINTS if f'crash_at("{point}")' not in source] == []


def test_the_documentation_lists_the_points() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page.split("## Crashes")[1], re.MULTILINE))
    assert list(shown) == list(CRASH_POINTS)


# What dies, and what does not


def test_jobs_that_were_leased_and_not_begun_are_not_put_back(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "_known", {})  # batches as in a new process
    enqueue(FreeJob, using, 5)
    with crash_at("claimed"):
        run_pool(FreeJob, using, Budget.endless())
    assert set(statuses(FreeJob, using)) == {"PROCESSING"}


def test_nothing_is_written_by_what_python_runs_on_the_way_up(using: str) -> None:
    enqueue(FifoJob, using, 1)
    with crash_at("claimed"):
        try:
            work(FifoJob, using)
        finally:
            FifoJob.rows(using).update(status="FAILED")
    assert statuses(FifoJob, using) == ["PROCESSING"]
    assert FifoJob.rows(using).update(priority=1) == 1  # and the connection is usable again


def test_a_worker_can_die_at_a_later_job(using: str) -> None:
    enqueue(FifoJob, using, 3)
    with crash_at("processed", nth=2):
        work(FifoJob, using)
    assert statuses(FifoJob, using) == ["PROCESSED", "PROCESSING", "NEW"]


def test_only_the_thread_that_came_to_the_point_dies(using: str) -> None:
    for number in range(6):
        LaneJob.enqueue(using=using, number=number)
    both = Barrier(2)  # or the second would be given the dead thread of the first
    with crash_at("claimed"):
        at_once(*[lambda: (both.wait(10), work(LaneJob, using))] * 2)
    assert sorted(statuses(LaneJob, using)) == ["PROCESSED"] * 5 + ["PROCESSING"]


@pytest.mark.django_db
def test_in_one_transaction_with_the_test_it_works_too() -> None:
    enqueue(FifoJob, "default", 1)
    with virtual_clock() as clock:
        with crash_at("processed"):
            work(FifoJob, "default")
        assert statuses(FifoJob, "default") == ["PROCESSING"]
        clock.advance(minutes=2)
        work(FifoJob, "default")
    assert statuses(FifoJob, "default") == ["PROCESSED"]
    assert not connections["default"].execute_wrappers


@pytest.mark.django_db(transaction=True)
def test_a_queue_that_a_test_runs_dies_there_too() -> None:
    enqueue(LaneJob, "default")
    for workers in (1, 2):
        with virtual_clock() as clock:
            with crash_at("claimed"):
                run_queue(LaneJob, workers)
            clock.advance(minutes=2)
            assert run_queue(LaneJob, workers) > 0
        LaneJob.rows("default").update(status="NEW")


# Mistakes


@pytest.mark.django_db(transaction=True)
def test_a_point_that_nothing_came_to_is_noticed() -> None:
    with pytest.raises(CrashPointNotReached, match="'rescued': A lease"), crash_at("rescued"):
        work(FifoJob, "default")


def test_an_error_of_the_block_is_not_covered_up() -> None:
    with pytest.raises(ZeroDivisionError), crash_at("rescued"):
        _ = 1 / 0


def test_a_point_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="no crash point 'clamed'; there are enqueued, "):
        crash_at("clamed").__enter__()


def test_no_handler_of_errors_stops_a_crash() -> None:
    assert not issubclass(Crash, Exception)


# Processes


KILLED = """
    import django
    django.setup()
    from django.core.management import call_command
    from parviraptor_celery.test import crash_at
    with crash_at({point!r}, how="kill"):
        call_command("process_queue", "testapp", "FifoJob")
"""


@pytest.mark.parametrize(("point", "notes"), [("claimed", 1), ("processed", 2), ("settled", 1)])
@pytest.mark.django_db(transaction=True)
def test_a_worker_of_a_process_of_its_own_is_killed(
    point: str, notes: int, in_process: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    job = FifoJob.objects.create()
    done = in_process(KILLED.format(point=point))
    assert done.returncode == -signal.SIGKILL, done.stderr

    job.refresh_from_db()
    assert job.status == ("PROCESSED" if point == "settled" else "PROCESSING")
    assert job.status == "PROCESSED" or job.lease_until > database_time("default")
    with virtual_clock() as clock:
        clock.advance(minutes=2)
        run_queue(FifoJob)
    assert statuses(FifoJob, "default") == ["PROCESSED"]
    assert Note.objects.count() == notes


@pytest.fixture
def in_process(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run Python source in a process that uses the database of this test."""
    (tmp_path / "settings_of_process.py").write_text(
        "from tests.settings import *\n"
        f"DATABASES = {{'default': {{**DATABASES['default'], "
        f"'NAME': {str(connections['default'].settings_dict['NAME'])!r}}}}}\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "settings_of_process",
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
    }

    def run(source: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(source)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
