"""The progress of a long job, as Flower shows it while the job runs."""

from __future__ import annotations

import json
import signal
import urllib.request
from typing import Any

import pytest

from tests.e2e.lives import SECONDS, Lives, enqueue, row, status, wait_for
from tests.e2e.test_stopping_workers import workers as workers
from tests.testapp.models import FifoJob

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")


def tasks(flower: str) -> list[dict[str, Any]]:
    """What Flower knows of the tasks that run jobs."""
    with urllib.request.urlopen(f"{flower}/api/tasks", timeout=SECONDS) as answer:
        found: dict[str, dict[str, Any]] = json.load(answer)
    return [task for task in found.values() if task["name"] == "parviraptor_celery.process_jobs"]


def test_flower_shows_how_far_a_job_has_come_and_then_its_end(workers: Lives) -> None:
    workers.hold()
    worker = workers.start("--task-events", body='self.set_progress(30, 100, "reading")')
    flower = workers.start_flower()
    (job,) = enqueue(FifoJob)

    def shown() -> bool:
        text = f"testapp.FifoJob {job.pk}: 30 of 100 (30 %), reading"
        return [(task["state"], task["result"]) for task in tasks(flower)] == [("PROGRESS", text)]

    wait_for(worker, shown, "the progress in Flower")
    wait_for(worker, lambda: bool(row(job).progress), "the progress in the row")
    workers.let_go()
    wait_for(worker, lambda: status(job) == "PROCESSED", "the end")
    wait_for(worker, lambda: [task["state"] for task in tasks(flower)] == ["SUCCESS"], "its end")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(SECONDS) == 0, worker.log_text()
