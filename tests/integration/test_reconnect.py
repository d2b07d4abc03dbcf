"""A connection that dies (failover, idle timeout, pooler) costs neither a row nor a second run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from django.db import InterfaceError, OperationalError, connections
from django.utils import timezone

from jaiminho_celery import registry
from jaiminho_celery import sweep as relay
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery import leases, sweep, worker
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from tests.integration.threads import at_once
from tests.supervision import processes
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, Note

ON_SERVERS = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """These tests are the workers and the relay themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    known = dict(registry._functions)
    yield
    registry._functions.clear()
    registry._functions.update(known)
    for connection in connections.all(initialized_only=True):
        connection.close_if_unusable_or_obsolete()  # for the test after a failed one


def lose_connection(using: str) -> None:
    """Let the server end this thread's connection, which does not know about that yet."""
    connection = connections[using]
    connection.ensure_connection()
    if connection.vendor == "postgresql":
        kill = f"SELECT pg_terminate_backend({connection.connection.info.backend_pid}, 10000)"
        at_once(lambda: _execute(using, kill))
        return
    number = connection.connection.thread_id()
    alive = f"SELECT 1 FROM information_schema.processlist WHERE id = {number}"

    def kill_and_wait() -> None:
        _execute(using, f"KILL {number}")
        processes.wait_until(lambda: not _execute(using, alive), 10, "the connection to be gone")

    at_once(kill_and_wait)


def _execute(using: str, statement: str) -> list[Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


@ON_SERVERS
def test_the_tests_themselves_know_how_to_lose_a_connection(using: str) -> None:
    lose_connection(using)
    with pytest.raises((OperationalError, InterfaceError)):
        Note.objects.using(using).exists()
    connections[using].close_if_unusable_or_obsolete()
    assert not Note.objects.using(using).exists()


@ON_SERVERS
def test_a_heartbeat_that_lost_its_connection_renews_on_a_new_one(using: str) -> None:
    FifoJob.enqueue(using=using)
    job = FifoJob.rows(using).get()
    assert job.claim()
    renewed: list[bool] = []
    tries = 0

    def renew() -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            lose_connection(using)
        renewed.append(job.keep_lease())
        return renewed[-1]

    with beating(renew, 0.3):
        processes.wait_until(lambda: len(renewed) >= 2, 5, "the lease to be renewed again")

    assert tries == len(renewed) + 1, "the one that failed is made up for at once"
    assert all(renewed)


@pytest.mark.django_db
@pytest.mark.parametrize("error", [InterfaceError("gone"), RuntimeError("a bug")])
def test_no_error_of_a_renewal_ends_the_heartbeat(error: Exception) -> None:
    tries: list[str] = []

    def renew() -> bool:
        tries.append("")
        if len(tries) < 4:
            raise error
        return True

    with beating(renew, 0.03):
        processes.wait_until(lambda: len(tries) >= 5, 5, "the heartbeat to go on")


@ON_SERVERS
@pytest.mark.parametrize("queue", [FifoJob, FreeJob])
def test_a_job_whose_connection_died_during_its_body_is_settled_and_run_once(
    using: str, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    def process(self: Any) -> None:
        ran.append(self.pk)
        lose_connection(using)

    monkeypatch.setattr(queue, "process", process)
    jobs = queue.enqueue_many([queue(), queue()], using=using)
    _work_off(jobs[0], using)

    assert list(queue.rows(using).values_list("status", flat=True)) == ["PROCESSED"] * 2
    assert len(ran) == 2


END_MYSELF = {
    "postgresql": "SELECT pg_terminate_backend(pg_backend_pid())",
    "mysql": "KILL CONNECTION_ID()",
}
"""Unlike a connection that died unnoticed, this one hears from the server why it ends."""


@ON_SERVERS
def test_an_atomic_body_whose_session_is_ended_under_its_statement_starts_again(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = []

    def process(job: Any) -> None:
        bodies.append(job.pk)
        Note.objects.using(using).create(text="effect")
        if len(bodies) == 1:
            _execute(using, END_MYSELF[connections[using].vendor])

    monkeypatch.setattr(AtomicJob, "process", process)
    job = AtomicJob.enqueue(using=using)
    _work_off(job, using)
    job.refresh_from_db(using=using)
    assert (job.status, job.error_message, len(bodies)) == ("PROCESSED", "", 2)
    assert Note.objects.using(using).count() == 1


@ON_SERVERS
def test_an_atomic_body_does_not_start_again_once_another_worker_has_its_job(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = []

    def process(job: Any) -> None:
        bodies.append(job.pk)
        if len(bodies) == 1:
            at_once(lambda: _take_over(job, using))
            _execute(using, END_MYSELF[connections[using].vendor])

    monkeypatch.setattr(AtomicJob, "process", process)
    job = AtomicJob.enqueue(using=using)
    _work_off(job, using)
    job.refresh_from_db(using=using)
    assert (job.status, job.attempt, len(bodies)) == ("PROCESSING", 2, 1)


def _take_over(job: Any, using: str) -> None:
    """Rescue and claim a job as another worker would whose look says that its lease is over."""
    past = timezone.now() - timedelta(minutes=1)
    AtomicJob.rows(using).filter(pk=job.pk).update(lease_until=past)
    assert sweep.rescue(AtomicJob, using) == 1
    assert AtomicJob.rows(using).get(pk=job.pk).claim()


@ON_SERVERS
@pytest.mark.parametrize("queue", [FifoJob, FreeJob])
def test_a_worker_whose_connection_died_before_the_kick_runs_the_job(
    using: str, queue: Any
) -> None:
    job = queue.enqueue(using=using)
    lose_connection(using)
    _work_off(job, using)
    assert queue.rows(using).get(pk=job.pk).status == "PROCESSED"


@ON_SERVERS
def test_an_ordered_event_whose_connection_died_is_published_once(using: str) -> None:
    published: list[int] = []

    @save_to_outbox_stream("ordered", "keep-order", using=using, name="tests.reconnect")
    def publish(number: int) -> None:
        published.append(number)
        lose_connection(using)

    publish(1)
    publish(2)
    relay.relay_here(using, Budget.endless())

    assert published == [1, 2]
    assert {event.status for event in Event.rows(using)} <= {"SENT"}


@ON_SERVERS
def test_a_hook_whose_connection_died_settles_its_event(using: str) -> None:
    published: list[int] = []

    @save_to_outbox(using=using, name="tests.reconnect_hook")
    def publish(number: int) -> None:
        published.append(number)
        lose_connection(using)

    publish(1)

    assert published == [1]
    assert {event.status for event in Event.rows(using)} <= {"SENT"}


@ON_SERVERS
def test_a_task_after_the_one_that_lost_its_connection_has_a_new_one(
    using: str, celery: Celery
) -> None:
    @celery.task(name="tests.count_notes", shared=False)
    def count_notes() -> int:
        return Note.objects.using(using).count()

    lose_connection(using)
    connections[using].close_at = None  # no age would end it either
    failed = count_notes.apply()
    assert isinstance(failed.result, (OperationalError, InterfaceError))
    assert count_notes.apply().get() == 0


@ON_SERVERS
def test_a_task_goes_on_with_the_healthy_connection_of_the_one_before(
    using: str, celery: Celery
) -> None:
    seen: list[Any] = []

    @celery.task(name="tests.look_at_connection", shared=False)
    def look_at_connection() -> None:
        connections[using].ensure_connection()
        seen.append(connections[using].connection)

    look_at_connection.apply()
    look_at_connection.apply()
    assert seen[0] is seen[1]


@pytest.fixture
def celery() -> Celery:
    """An application that keeps connections over tasks, as CELERY_DB_REUSE_MAX lets it."""
    assert worker.renew_connections  # it is connected to the signals of all tasks
    return Celery("reconnect", broker="memory://", set_as_current=False)


@contextmanager
def beating(renew: Callable[[], bool], lease_seconds: float) -> Iterator[None]:
    """Keep a lease with a heartbeat of its own, whose thread and connection end with the block."""
    heartbeat = leases.Heartbeat()
    with heartbeat.keep(renew, lease_seconds):
        thread = heartbeat._thread
        yield
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()


def _work_off(job: Any, using: str) -> None:
    """Do what the kick of ``job`` asks for."""
    if job.lane is None:
        run_pool(type(job), using, Budget.endless())
    else:
        run_lanes(type(job), using, [job.lane], Budget.endless())
