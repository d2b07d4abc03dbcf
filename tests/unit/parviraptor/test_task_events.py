"""The events by which Flower learns how far a job has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.events.state import State

from parviraptor_celery import broker, task_events
from parviraptor_celery.task_events import Sender, Watched
from parviraptor_celery.tasks import process_jobs
from tests.testapp.models import FifoJob
from tests.unit.conftest import CELERY

PATIENCE = 10
"""Seconds until a test gives up waiting for a thread."""


class Collected(Sender):
    """Collects what it is given, and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Watched] = []

    def add(self, watched: Watched) -> None:
        self.given.append(watched)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """The jobs that are to be watched, in a worker that sends events."""
    collected = Collected()
    monkeypatch.setattr(task_events, "_sender", collected)
    monkeypatch.setattr(task_events, "_are_sent", True)
    return collected.given


def run_in_a_task(**request: Any) -> FifoJob:
    """Run a job in a task as a worker would."""
    job = FifoJob.enqueue()
    process_jobs.push_request(id="abc", hostname="w@host", is_eager=False, **request)
    from celery._state import _task_stack

    _task_stack.push(process_jobs)
    try:
        process_jobs.run(queue="testapp.FifoJob", lanes=[job.lane])
    finally:
        _task_stack.pop()
        process_jobs.pop_request()
    return job


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FifoJob, "process", lambda self: self.set_progress(30, 100, "reading"))


@pytest.mark.django_db
@pytest.mark.usefixtures("says")
class TestAJobThatSaysHowFarItIs:
    def test_is_watched_for_its_task(self, given: list[Watched]) -> None:
        job = run_in_a_task()
        (watched,) = given
        assert (watched.task_id, watched.hostname) == ("abc", "w@host")
        assert watched.news() == f"testapp.FifoJob {job.pk}: 30 of 100 (30 %), reading"
        assert watched.is_over

    def test_is_not_in_a_worker_that_sends_no_events(
        self, given: list[Watched], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_events, "_are_sent", False)
        run_in_a_task()
        assert given == []

    def test_is_not_outside_of_celery(self, given: list[Watched]) -> None:
        job = FifoJob.enqueue()
        process_jobs.run(queue="testapp.FifoJob", lanes=[job.lane])
        assert given == []


def test_a_worker_sends_them_if_it_was_started_with_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_events, "_are_sent", False)

    class Worker:
        task_events = True

    task_events.are_events_sent(sender=Worker())
    assert task_events._are_sent
    Worker.task_events = False
    task_events.are_events_sent(sender=Worker())
    assert not task_events._are_sent


def test_celery_shows_them_as_a_state_that_its_end_replaces() -> None:
    state, common = State(), {"uuid": "abc", "hostname": "w", "pid": 1, "local_received": 1.0}

    def happens(kind: str, **fields: Any) -> tuple[str, str]:
        state.event({"type": kind, **common, "timestamp": 1.0, "clock": 1, **fields})
        task: Any = state.tasks["abc"]
        return task.state, task.result

    happens("task-received")
    happens("task-started")
    assert happens(task_events.TYPE, result="7: 1 of 2") == ("PROGRESS", "7: 1 of 2")
    assert happens(task_events.TYPE, result="7: 2 of 2") == ("PROGRESS", "7: 2 of 2")
    assert happens("task-succeeded", result="1") == ("SUCCESS", "1")


class TestTheSender:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(task_events, "PAUSE_SECONDS", 0.01)

    @pytest.fixture
    def job(self) -> Iterator[Any]:
        job = FifoJob(pk=7)
        job._is_running_here = True
        yield job
        job._is_running_here = False  # which ends the thread

    def test_sends_the_newest_and_each_once(
        self, job: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[str] = []
        progressed = threading.Semaphore(0)

        def send(watched: Watched, text: str) -> bool:
            sent.append(text)
            progressed.release()
            return True

        monkeypatch.setattr(task_events, "send", send)
        job.set_progress(1)
        job.set_progress(2)
        sender = Sender()
        sender.add(Watched(job, CELERY, "abc", "w"))
        assert progressed.acquire(timeout=PATIENCE)
        job.set_progress(3)
        assert progressed.acquire(timeout=PATIENCE)
        job._is_running_here = False
        ended(sender)
        assert sent == ["testapp.FifoJob 7: 2", "testapp.FifoJob 7: 3"]

    def test_tries_again_what_a_broker_did_not_take(
        self, job: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tries, enough = list[object](), threading.Event()

        def use(app: Celery, action: object) -> None:
            tries.append(action)
            if len(tries) < 3:
                raise broker.BrokerAway("for a moment")
            enough.set()

        monkeypatch.setattr(broker, "use", use)
        job.set_progress(1)
        sender = Sender()
        sender.add(Watched(job, CELERY, "abc", "w"))
        assert enough.wait(PATIENCE)
        job._is_running_here = False
        ended(sender)
        assert len(tries) == 3

    def test_leaves_the_body_alone_while_the_broker_takes_its_time(
        self, job: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, answer = threading.Event(), threading.Event()

        def use(app: Celery, action: object) -> None:
            asked.set()
            assert answer.wait(PATIENCE)

        monkeypatch.setattr(broker, "use", use)
        sender = Sender()
        sender.add(Watched(job, CELERY, "abc", "w"))
        job.set_progress(1)
        assert asked.wait(PATIENCE)
        began = time.monotonic()
        for done in range(1000):
            job.set_progress(done)
        sender.add(Watched(job, CELERY, "def", "w"))
        assert time.monotonic() - began < PATIENCE / 2, "the broker has not answered yet"
        answer.set()
        job._is_running_here = False
        ended(sender)


def ended(sender: Sender) -> None:
    """Wait for the sender's thread, which ends when nothing is watched any more."""
    if (thread := sender._thread) is not None:
        thread.join(PATIENCE)
        assert not thread.is_alive()
