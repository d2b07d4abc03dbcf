"""Races and second tries around a lane: each test arranges the one moment that matters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.utils import timezone

from jaiminho_celery import registry
from jaiminho_celery import sweep as relay
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox
from parviraptor_celery import sweep
from parviraptor_celery.dispatch import JobLaneFeed, JobPoolFeed, run_lanes, run_pool
from parviraptor_celery.drains import Budget
from tests.integration.threads import at_once, open_transaction
from tests.supervision import processes
from tests.testapp.models import AtomicJob, FifoJob, FreeJob

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)


def deadlock() -> OperationalError:
    """Return what every engine's deadlock, or SQLite's busy database, is taken for."""
    return OperationalError(1213, "database is locked: deadlock found")


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """These tests are the workers and the relay themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    known = dict(registry._functions)
    yield
    registry._functions.clear()
    registry._functions.update(known)


# The body of an atomic job runs again after a deadlock


def test_an_atomic_body_that_runs_again_after_a_deadlock_starts_with_the_job_as_it_was(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[tuple[int | None, str]] = []

    def process(self: Any) -> None:
        starts.append((self.result, self.script))
        self.result, self.script = 7, f"{self.script}x"
        if len(starts) == 1:
            raise deadlock()

    monkeypatch.setattr(AtomicJob, "process", process)
    job = AtomicJob.enqueue(using=using)
    run_lanes(AtomicJob, using, [job.lane], Budget.endless())

    row = AtomicJob.rows(using).get()
    assert (row.status, row.result, row.script) == ("PROCESSED", 7, "x")
    assert starts == [(None, ""), (None, "")]


# A failed cause comes back while its dependents are being failed


def failed_cause_with_dependents(using: str) -> Any:
    FifoJob.enqueue_many([FifoJob(script="fail x"), FifoJob(), FifoJob()], using=using)
    cause = FifoJob.rows(using).order_by("id")[0]
    run_lanes(FifoJob, using, [cause.lane], Budget(rows=1, seconds=60))
    cause.refresh_from_db()
    assert statuses(FifoJob, using) == ["FAILED", "NEW", "NEW"]
    return cause


def bring_back(cause: Any, verb: str) -> None:
    if verb == "retry":
        FifoJob.rows(cause.alias).filter(pk=cause.pk).update(script="")
    getattr(cause, verb)()


VERBS = pytest.mark.parametrize("verb", ["retry", "ignore", "delete"])


@VERBS
def test_a_cause_that_came_back_since_the_look_takes_no_dependents_down(
    using: str, verb: str
) -> None:
    cause = failed_cause_with_dependents(using)
    feed = JobLaneFeed(FifoJob.rows(using), cause.lane)
    held = feed.candidate()
    assert held.held_by == cause.pk

    bring_back(cause, verb)
    feed.clear_obstacle(held)

    assert "FAILED" not in statuses(FifoJob, using)
    run_lanes(FifoJob, using, [cause.lane], Budget.endless())
    assert set(statuses(FifoJob, using)) <= {"PROCESSED", "IGNORED"}


@CONCURRENT
@VERBS
def test_failing_the_dependents_waits_for_whoever_is_bringing_the_cause_back(
    using: str, verb: str
) -> None:
    cause = failed_cause_with_dependents(using)
    feed = JobLaneFeed(FifoJob.rows(using), cause.lane)
    held = feed.candidate()

    with (
        open_transaction(using, lambda: bring_back(cause, verb)) as coming_back,
        in_a_thread(lambda: feed.clear_obstacle(held)) as clearing,
    ):
        let_them_meet(clearing, using)
        coming_back.committed()

    assert "FAILED" not in statuses(FifoJob, using)


@CONCURRENT
def test_a_retry_that_comes_while_the_dependents_fail_brings_them_back_too(using: str) -> None:
    cause = failed_cause_with_dependents(using)
    feed = JobLaneFeed(FifoJob.rows(using), cause.lane)
    held = feed.candidate()

    with (
        open_transaction(using, lambda: feed.clear_obstacle(held)) as failing,
        in_a_thread(lambda: bring_back(cause, "retry")) as retrying,
    ):
        let_them_meet(retrying, using)
        failing.committed()

    assert statuses(FifoJob, using) == ["NEW", "NEW", "NEW"]


# Reading the row again does not make a worker the owner


def test_a_worker_that_reads_its_job_again_does_not_get_the_new_owners_token(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = FifoJob.enqueue_many([FifoJob(), FifoJob()], using=using)
    owners: list[Any] = []
    kept: list[bool] = []

    def process(self: Any) -> None:
        assert not owners, "the second body must not run here"
        lose_lease(self)
        owner = FifoJob.rows(using).candidate(self.lane, "NEW")
        assert owner.claim()
        owners.append(owner)
        self.refresh_from_db()
        kept.append(self.keep_lease())

    monkeypatch.setattr(FifoJob, "process", process)
    run_lanes(FifoJob, using, [first.lane], Budget.endless())

    assert statuses(FifoJob, using) == ["PROCESSING", "NEW"]
    assert kept == [False]
    (owner,) = owners
    assert owner.keep_lease()
    assert owner.rest("PROCESSED")


# A settlement that starts again counts once


@pytest.mark.parametrize(("seen", "status"), [(0, "NEW"), (2, "FAILED")])
def test_a_settlement_of_a_pool_that_starts_again_counts_the_error_once(
    using: str, monkeypatch: pytest.MonkeyPatch, seen: int, status: str
) -> None:
    # PostgreSQL is to lease and begin in two steps, too.
    monkeypatch.setattr(JobPoolFeed, "is_first", False)
    FreeJob.enqueue_many([FreeJob(script="temporary away"), FreeJob()], using=using)
    FreeJob.rows(using).exclude(script="").update(error_count=seen)
    with deadlock_at_the_second(FreeJob, "begin", monkeypatch) as begun:
        run_pool(FreeJob, using, Budget.endless())

    assert len(begun) == 3
    row = FreeJob.rows(using).get(script="temporary away")
    assert (row.status, row.error_count) == (status, seen + 1)
    assert row.error_message.count("away") == 1
    assert row.error_message.count("threshold") == (1 if status == "FAILED" else 0)
    assert statuses(FreeJob, using)[1] == "PROCESSED"


def test_a_settlement_of_the_relay_that_starts_again_counts_the_failure_once(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @save_to_outbox(using=using, name="tests.pool_restart")
    def publish(number: int) -> None:
        if number == 1:
            raise ConnectionError("the other side is away")

    monkeypatch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
    publish(1)
    publish(2)
    Event.rows(using).update(status="WAITING", lease_until=None, leased_by="")
    with deadlock_at_the_second(Event, "begin", monkeypatch) as begun:
        relay.relay_here(using, Budget(rows=2, seconds=60))

    assert len(begun) == 3
    assert Event.rows(using).order_by("id")[0].error_count == 1


# A body that keeps its own row locked


@CONCURRENT
def test_a_body_that_locks_its_row_does_not_keep_the_heartbeat_from_other_jobs(
    using: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"LEASE_SECONDS": 0.9}
    locked, renewed, leases = threading.Event(), threading.Event(), set[Any]()

    def lock_own_row(self: Any) -> None:
        self.save()  # own columns, in the transaction of the body
        locked.set()
        assert renewed.wait(10), "the other job's lease was not renewed"

    def watch_own_lease(self: Any) -> None:
        def is_renewed() -> bool:
            leases.add(FifoJob.rows(using).get(pk=self.pk).lease_until)
            return len(leases) >= 3

        processes.wait_until(is_renewed, 5, "the heartbeat to renew this job")
        renewed.set()

    monkeypatch.setattr(AtomicJob, "process", lock_own_row)
    monkeypatch.setattr(FifoJob, "process", watch_own_lease)
    jobs = AtomicJob.enqueue(using=using), FifoJob.enqueue(using=using)

    def run_the_other() -> None:
        assert locked.wait(10)
        run_lanes(FifoJob, using, [jobs[1].lane], Budget.endless())

    at_once(
        lambda: run_lanes(AtomicJob, using, [jobs[0].lane], Budget.endless()) and None,
        run_the_other,
    )
    assert statuses(AtomicJob, using) + statuses(FifoJob, using) == ["PROCESSED", "PROCESSED"]


# Helpers


def statuses(queue: Any, using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))


def lose_lease(job: Any) -> None:
    """Let the lease of a job run out, and somebody notice."""
    past = timezone.now() - timedelta(minutes=5)
    type(job).rows(job.alias).filter(pk=job.pk).update(lease_until=past)
    assert sweep.rescue(type(job), job.alias) == 1


@contextmanager
def deadlock_at_the_second(
    model: Any, verb: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[int]]:
    """Let the second call of a verb be a deadlock; collects the ids of the rows it is called on."""
    real, called = getattr(model, verb), list[int]()

    def call(self: Any) -> Any:
        called.append(self.pk)
        if len(called) == 2:
            raise deadlock()
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(model, verb, call)
        yield called


@contextmanager
def in_a_thread(body: Callable[[], Any]) -> Iterator[Future[list[Any]]]:
    """Run ``body`` beside the block; its error is raised at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(at_once, body)
        yield future
        future.result(30)


def let_them_meet(other: Future[Any], using: str) -> None:
    """Wait until the other thread waits for a lock, or is done because it needs none."""
    processes.wait_until(
        lambda: other.done() or somebody_waits_for_a_lock(using), 10, "the two to meet"
    )


def somebody_waits_for_a_lock(using: str) -> bool:
    with connections[using].cursor() as cursor:
        if connections[using].vendor == "postgresql":
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(cursor.fetchone()[0])
        # Of the whole server; information_schema.innodb_trx would be older than 0.1 s.
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
        return int(cursor.fetchone()[1]) > 0
