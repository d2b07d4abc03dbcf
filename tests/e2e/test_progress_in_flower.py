"""The progress of a long job, as Flower shows it while the job runs."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup, RedisTestBroker

from tests.e2e.jobs import Hold, enqueue, row, status
from tests.e2e.nodes import SECONDS, DjangoWorker, Workers
from tests.testapp.models import FifoJob

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


@pytest.fixture
def celery_broker(processes_redis_broker: RedisTestBroker) -> RedisTestBroker:
    return processes_redis_broker


@pytest.fixture
def celery_worker(workers: Workers) -> DjangoWorker:
    return workers.start("--task-events")


def tasks(flower: str) -> list[dict[str, Any]]:
    """What Flower knows of the tasks that run jobs."""
    with urllib.request.urlopen(f"{flower}/api/tasks", timeout=SECONDS) as answer:
        found: dict[str, dict[str, Any]] = json.load(answer)
    return [task for task in found.values() if task["name"] == "parviraptor_celery.process_jobs"]


def test_flower_shows_how_far_a_job_has_come_and_then_its_end(
    celery_setup: CeleryTestSetup, workers: Workers, hold: Hold
) -> None:
    hold.take()
    worker, flower = celery_setup.worker, workers.start_flower()
    (job,) = enqueue(FifoJob, script="show progress")

    def shown() -> bool:
        text = f"testapp.FifoJob {job.pk}: 30 of 100 (30 %), reading"
        # A sweep may have kicked as well: that task finds the lane running, and ends.
        return ("PROGRESS", text) in [(task["state"], task["result"]) for task in tasks(flower)]

    worker.wait_until(shown, "the progress in Flower")
    worker.wait_until(lambda: bool(row(job).progress), "the progress in the row")
    hold.let_go()
    worker.wait_until(lambda: status(job) == "PROCESSED", "the end")
    worker.wait_until(lambda: {task["state"] for task in tasks(flower)} == {"SUCCESS"}, "its end")
    worker.kill("SIGTERM")
    assert worker.exit_status() == 0, worker.logs()
