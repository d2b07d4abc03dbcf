"""What the job queues promise where Celery workers, brokers and processes are real.

Continues queue_contract/: public names only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import TestWorkController, start_worker
from celery.signals import worker_ready
from django.db import connections
from django.utils import timezone

from parviraptor_celery import broker
from parviraptor_celery.models import BackoffStrategy
from tests.supervision import processes
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob, Note
from tests.unit.conftest import using_celery

pytestmark = pytest.mark.usefixtures("one_database")

QUEUES = pytest.mark.parametrize("queue", [FifoJob, LaneJob, AtomicJob, FreeJob])
ROOT = Path(__file__).resolve().parents[2]
PROCESS = "parviraptor_celery.process_jobs"
SECONDS = 30.0


@pytest.fixture
def app(redis_url: str, queue_name: str) -> Iterator[Celery]:
    """The Celery of a project, with a queue of its own on Redis."""
    app = Celery(queue_name, broker=redis_url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue_name,
        worker_hijack_root_logger=False,
        worker_send_task_events=True,
        event_exchange=f"{queue_name}-events",
        event_queue_prefix=queue_name,
        broker_heartbeat=1,
    )
    with using_celery(app):
        app.set_default()
        app.finalize()
        yield app
        with app.connection_for_write() as connection:
            app.amqp.queues[queue_name](connection.default_channel).delete()
    broker.close_breaker()


class Worker(TestWorkController):
    """Says that it is ready, as a worker that is no test does."""

    def on_consumer_ready(self, consumer: Any) -> None:
        worker_ready.send(sender=consumer)
        super().on_consumer_ready(consumer)


@contextmanager
def a_worker(app: Celery) -> Iterator[None]:
    """Let a Celery worker run in a thread."""
    options: Any = {"perform_ping_check": False, "shutdown_timeout": 20, "task_events": True}
    options["WorkController"] = Worker
    with start_worker(app, loglevel="WARNING", **options):
        yield


def statuses(queue: Any) -> list[str]:
    return list(queue.objects.order_by("pk").values_list("status", flat=True))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    processes.wait_until(condition, SECONDS, what)


class Flower:
    """Sees of the workers what Flower sees: their events."""

    def __init__(self, app: Celery, connection: Any) -> None:
        self.state = app.events.State()
        self.receiver = app.events.Receiver(connection, handlers={"*": self.state.event})

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self.receiver.consumer_context() as (self.connection, _, _):
            self.look()  # Redis subscribes while it waits, and not before
            yield

    def look(self) -> None:
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=0.3)

    def states_of(self, task: str) -> set[str]:
        self.look()
        return {str(one.state) for one in self.state.tasks.values() if one.name == task}


@QUEUES
def test_behaviour_2_the_task_of_a_temporary_failure_shows_as_retry_and_everything_else_goes_on(
    queue: Any, using: str, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "BACKOFF_STRATEGY", BackoffStrategy.CONSTANT)
    monkeypatch.setattr(queue, "BACKOFF_STEP_MINUTES", 60)
    fields = {"shop": "a"} if queue in (LaneJob, AtomicJob) else {}
    away = queue.enqueue(script="temporary away", **fields)
    rest = [queue.enqueue(shop=shop).pk for shop in "bcb"] if fields else []
    if queue is FreeJob:
        rest = [queue.enqueue().pk for _ in range(5)]
    with app.connection_for_read() as connection:
        flower = Flower(app, connection)
        with flower.watching(), a_worker(app):
            wait_for(lambda: "RETRY" in flower.states_of(PROCESS), "the task to show as RETRY")
            wait_for(lambda: all_are("PROCESSED", queue, rest), "the others to be processed")
    row = queue.objects.get(pk=away.pk)
    assert (row.status, row.error_count, row.attempt) == ("NEW", 1, 1)
    assert abs(row.run_after - row.modification_date - timedelta(hours=1)) < timedelta(seconds=1)


def all_are(status: str, queue: Any, pks: list[int]) -> bool:
    found = queue.objects.filter(pk__in=pks).values_list("status", flat=True)
    return list(found) == [status] * len(pks)


@pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
def test_behaviour_2_the_retry_comes_when_the_job_is_due(
    queue: Any, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []

    def process(job: Any) -> None:
        begun.append(timezone.now())
        if len(begun) == 1:
            job.raise_temporary_failure("away")

    monkeypatch.setattr(queue, "process", process)
    monkeypatch.setattr(queue, "BACKOFF_STRATEGY", BackoffStrategy.CONSTANT)
    monkeypatch.setattr(queue, "BACKOFF_STEP_MINUTES", 1 / 60)
    queue.enqueue()
    with a_worker(app):
        wait_for(lambda: statuses(queue) == ["PROCESSED"], "the second try")
    assert len(begun) == 2
    assert begun[1] - begun[0] > timedelta(seconds=0.9)


@QUEUES
def test_behaviour_7_workers_sweep_too_though_no_tick_of_beat_ever_comes(
    queue: Any, using: str, app: Celery, settings: Any
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "DISPATCH_INTERVAL_SECONDS": 1}
    queue.objects.bulk_create([queue(), queue()])  # which nobody is kicked for
    with a_worker(app):
        wait_for(lambda: statuses(queue) == ["PROCESSED"] * 2, "a sweep of the worker's own")


# Processes


SETTINGS = """
from tests.settings import *
from tests.settings import DATABASES as every
DATABASES = {{"default": {{**every[{alias!r}], "NAME": {name!r}}}}}
PARVIRAPTOR_CONFIG = {{"LEASE_SECONDS": 1.5}}
"""

PROGRAM = """
import os, signal
import django
django.setup()
from celery import current_app
current_app.conf.broker_url = "redis://127.0.0.1:1/0"  # nobody: no broker is needed
from django.core.management import call_command
from tests.testapp.models import {queue} as Queue, Note

def process(self):
    Note.objects.create(text=f"{{self.pk}} {{self.attempt}}")
    others = Queue.objects.exclude(pk=self.pk)
    if self.attempt == 1 and others.filter(pk__gt=self.pk).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if not others.exclude(status="PROCESSED").exists():
        os.kill(os.getpid(), signal.SIGTERM)

Queue.process = process
call_command("process_queue", "testapp", "{queue}")
"""


@pytest.mark.parametrize("queue", [FifoJob, LaneJob, FreeJob])
def test_behaviour_5_what_a_process_held_that_was_killed_is_run_by_the_next(
    queue: Any, using: str, tmp_path: Path
) -> None:
    killed, last = queue.objects.create(), queue.objects.create()
    connections[using].close()
    name = str(connections[using].settings_dict["NAME"])
    (tmp_path / "contract_settings.py").write_text(SETTINGS.format(alias=using, name=name))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "DJANGO_SETTINGS_MODULE": "contract_settings",
    }

    def run() -> tuple[int, str]:
        argv = [sys.executable, "-c", PROGRAM.format(queue=queue.__name__)]
        ran = subprocess.run(
            argv, check=False, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        return ran.returncode, ran.stderr

    assert run()[0] == -signal.SIGKILL
    assert statuses(queue) == ["PROCESSING", "NEW"]
    code, errors = run()
    assert code == 0, errors
    done = [f"{killed.pk} 1", f"{killed.pk} 2", f"{last.pk} 1"]
    assert sorted(Note.objects.values_list("text", flat=True)) == done, errors
    assert statuses(queue) == ["PROCESSED"] * 2
    assert list(queue.objects.order_by("pk").values_list("worker_deaths", flat=True)) == [1, 0]
