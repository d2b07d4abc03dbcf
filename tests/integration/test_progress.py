"""The progress of a job that still runs, as others see it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections, transaction

from parviraptor_celery import leases, sweep
from parviraptor_celery.dispatch import run_lanes
from parviraptor_celery.drains import Budget
from tests.integration.threads import at_once
from tests.supervision import processes
from tests.testapp.models import AtomicJob, FifoJob

PATIENCE = 20.0


class Seen:
    """Lets a body wait until another connection sees some progress of its job."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, queue: Any, using: str) -> None:
        self.queue, self.using = queue, using
        self.asked, self.answered = threading.Event(), threading.Event()
        self.wanted = ""
        monkeypatch.setattr(queue, "process", lambda job: self.body(job))
        monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
        self.job = queue.enqueue(using=using)

    def run(self) -> Any:
        at_once(self._work, self._look)
        return self.row()

    def await_(self, text: str) -> None:
        self.wanted = text
        self.asked.set()
        assert self.answered.wait(PATIENCE), f"nobody saw {text!r}"
        self.asked.clear()
        self.answered.clear()

    def row(self) -> Any:
        return self.queue.rows(self.using).get(pk=self.job.pk)

    def body(self, job: Any) -> None:
        raise NotImplementedError

    def _work(self) -> None:
        try:
            run_lanes(self.queue, self.using, [self.job.lane], Budget.endless())
        finally:
            self.wanted = "the end"
            self.asked.set()

    def _look(self) -> None:
        while self.asked.wait(PATIENCE) and self.wanted != "the end":
            processes.wait_until(
                lambda: self.wanted == "the end" or self.row().progress == self.wanted,
                PATIENCE,
                f"{self.wanted} in the row",
            )
            self.asked.clear()
            self.answered.set()


@pytest.fixture
def own_heartbeat(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A heartbeat whose thread and connection end with the test."""
    settings.PARVIRAPTOR_CONFIG = {"LEASE_SECONDS": 6}
    heartbeat = leases.Heartbeat()
    monkeypatch.setattr("parviraptor_celery.execution.heartbeat", heartbeat)
    yield
    if (thread := heartbeat._thread) is not None:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.usefixtures("own_heartbeat")
def test_the_newest_is_seen_while_the_body_runs(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Says(Seen):
        def body(self, job: Any) -> None:
            for done in range(31):
                job.set_progress(done, 100, "reading")
            self.await_("30 of 100 (30 %), reading")
            job.set_progress(60, 100)
            self.await_("60 of 100 (60 %)")
            job.set_progress(100, 100)

    row = Says(monkeypatch, FifoJob, using).run()
    assert (row.status, row.progress) == ("PROCESSED", "100 of 100 (100 %)")


@pytest.mark.usefixtures("own_heartbeat")
@pytest.mark.parametrize("queue", [FifoJob, AtomicJob])
def test_it_is_seen_though_the_body_is_in_a_transaction(
    using: str, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connections[using].vendor == "sqlite":
        using_one_writer(using, queue, monkeypatch)
        return

    class Says(Seen):
        def body(self, job: Any) -> None:
            with transaction.atomic(using=using):
                job.set_progress(1, 2)
                self.await_("1 of 2 (50 %)")

    row = Says(monkeypatch, queue, using).run()
    assert (row.status, row.progress) == ("PROCESSED", "1 of 2 (50 %)")


def using_one_writer(using: str, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite: nobody writes while the body's transaction is open; it shows afterwards."""

    class Says(Seen):
        def body(self, job: Any) -> None:
            with transaction.atomic(using=using):
                job.set_progress(1, 2)

    row = Says(monkeypatch, queue, using).run()
    assert (row.status, row.progress) == ("PROCESSED", "1 of 2 (50 %)")


@pytest.mark.usefixtures("own_heartbeat")
def test_a_job_that_was_taken_away_can_not_write_it(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Says(Seen):
        def body(self, job: Any) -> None:
            job.set_progress(1, 2)
            self.queue.rows(using).filter(pk=job.pk).update(attempt=7, progress_note="of another")
            assert not job.keep_lease()

    row = Says(monkeypatch, FifoJob, using).run()
    assert (row.progress_done, row.progress_note) == (None, "of another")


def test_it_stays_on_a_job_whose_worker_died(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """People see how far it came, until the next run begins."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    job = FifoJob.enqueue(using=using)
    job.claim()
    with job.progressing(lambda: None):
        job.set_progress(5, 9)
        assert job.keep_lease()
    FifoJob.rows(using).update(lease_until="2001-01-01T00:00Z")
    assert sweep.rescue(FifoJob, using) == 1
    row = FifoJob.rows(using).get(pk=job.pk)
    assert (row.status, row.progress) == ("NEW", "5 of 9 (55 %)")
