"""The workers' Celery application. Bodies note what happens to them, and can be held by the test.

A job's `script` says what its body does beyond that, and what it does when the worker stops.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import current_task
from celery.signals import worker_init

from jaiminho_celery.app import OutboxCelery
from tests.e2e.project import LOCK

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.e2e.project.settings")

# Named like the test's, for which it publishes what waits in the outbox.
app = OutboxCelery(os.environ["E2E_QUEUE"])
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.task(name="e2e.note")
def note_a_message(using: str, text: str) -> None:
    """Note what a message brought; its sender is behind the outbox."""
    note(using, f"message {text}")


@worker_init.connect
def stand_by(**_: Any) -> None:
    """Wait until the test sets this worker to work, if it was told to stand by."""
    gate = os.environ.get("E2E_GATE")
    while gate and not Path(gate).exists():
        time.sleep(0.02)


@app.on_after_finalize.connect
def script_the_jobs(**_: Any) -> None:
    """Give the tests' queues the bodies of these tests."""
    import django

    django.setup()
    from tests.testapp import outbox
    from tests.testapp.models import AtomicJob, FifoJob, FreeJob

    outbox.calls = Calls()
    for queue in (AtomicJob, FifoJob, FreeJob):
        queue.process, queue.on_job_terminated = process, on_job_terminated


class Calls(list[Any]):
    """What the outbox's functions were called with, noted for the test to read."""

    def append(self, call: tuple[str, tuple[Any, ...], dict[str, Any]]) -> None:
        _, (text, *_), _ = call
        note("default", f"event {text}")


def process(self: Any) -> None:
    """Note the beginning, do what the script says, wait until the test lets go, note the end."""
    using = self._state.db
    note(using, f"began {self.pk}")
    note(using, f"host {current_task.request.hostname}")
    match self.script:
        case "write":
            self.result = 7
            note(using, f"effect {self.pk}")
        case "show progress":
            self.set_progress(30, 100, "reading")
    wait_until_let_go(using)
    note(using, f"ended {self.pk}")


def on_job_terminated(self: Any) -> None:
    """Note that the job was told of the stop; hand it back, unless it takes no notice."""
    note(self._state.db, f"told {self.pk}")
    if self.script != "take no notice":
        self.update_job_for_being_resumed()


def note(using: str, text: str) -> None:
    """Write a row for the test to read."""
    from tests.testapp.models import Note

    Note.objects.using(using).create(text=text)


def wait_until_let_go(using: str) -> None:
    """Wait, in a query, while the test holds the lock; only PostgreSQL's jobs can be held."""
    from django.db import connections

    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s), pg_advisory_unlock(%s)", [LOCK, LOCK])
