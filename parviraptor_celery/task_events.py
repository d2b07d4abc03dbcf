"""Tells Flower how far a long job has come, by events of the Celery task that runs it.

A thread of its own sends them, so that neither a body nor a heartbeat ever waits for the broker.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import Celery, current_task
from celery.signals import worker_init
from django.dispatch import receiver
from kombu import Connection

from . import broker, signals
from .progress import described

TYPE = "task-progress"
PAUSE_SECONDS = 1.0
_are_sent = False


@worker_init.connect(dispatch_uid="parviraptor_celery.are_events_sent")
def are_events_sent(sender: Any, **_: Any) -> None:
    """Note whether this worker, whose children are forked later, was started with events."""
    global _are_sent
    _are_sent = bool(sender.task_events)


@receiver(signals.job_progresses, dispatch_uid="parviraptor_celery.tell_flower")
def tell_flower(job: Any, **_: Any) -> None:
    """Send events about ``job`` while it runs, if it does so in a task of such a worker."""
    task = current_task
    if _are_sent and task and task.send_events and not task.request.is_eager:
        _sender.add(Watched(job, task.app, str(task.request.id), str(task.request.hostname)))


@dataclass(eq=False)
class Watched:
    """A job that runs, the task that runs it, and what was sent last."""

    job: Any
    app: Celery
    task_id: str
    hostname: str
    sent: str = ""

    def news(self) -> str:
        """Return what is to be sent now, or ""."""
        job = self.job
        text = described(job.progress_done, job.progress_total, job.progress_note)
        text = f"{job._meta.label} {job.pk}: {text}" if text else ""
        return text if text != self.sent else ""

    @property
    def is_over(self) -> bool:
        return not getattr(self.job, "_is_running_here", False)


class Sender:
    """Sends the newest progress of each watched job once a second, from one lazy thread."""

    def __init__(self) -> None:
        self._pid, self._changed = os.getpid(), threading.Condition()
        self._watched: list[Watched] = []
        self._thread: threading.Thread | None = None

    def add(self, watched: Watched) -> None:
        if self._pid != os.getpid():
            self.__init__()  # type: ignore[misc]
        with self._changed:
            self._watched.append(watched)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="task-events", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        for watched in self._every_second():
            if (text := watched.news()) and send(watched, text):
                watched.sent = text

    def _every_second(self) -> Iterator[Watched]:
        while True:
            time.sleep(PAUSE_SECONDS)
            with self._changed:
                self._watched = [watched for watched in self._watched if not watched.is_over]
                if not self._watched:
                    self._thread = None
                    return
                now = list(self._watched)
            yield from now


def send(watched: Watched, text: str) -> bool:
    """Publish one event, within the broker's short time limits; return whether that worked.

    Celery and Flower show the state PROGRESS, and the text as the result of the task so far.
    """

    app = watched.app

    def publish(connection: Connection) -> None:
        events = app.events.Dispatcher(connection, enabled=False, hostname=watched.hostname)
        producer = app.amqp.Producer(connection, auto_declare=False)
        events.publish(TYPE, {"uuid": watched.task_id, "result": text}, producer)

    try:
        broker.use(app, publish)
    except broker.FAILURES:
        return False
    return True


_sender = Sender()
