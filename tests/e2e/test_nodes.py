"""Jobs and events on nodes of pytest-celery: a worker of our code, on Redis and on RabbitMQ.

The test is the web process: it commits, and its kicks and messages go out through the setup's
application. Children, workers and the broker are killed and come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from pytest_celery import CeleryTestSetup, CeleryWorkerCluster

from jaiminho_celery.models import Event
from parviraptor_celery.models import Tick
from tests import servers
from tests.e2e.jobs import Hold, cost, let_leases_run_out, notes, status
from tests.e2e.nodes import SECONDS, DjangoWorker, Workers
from tests.testapp.models import FifoJob
from tests.testapp.outbox import in_order

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")
SECRET = "a word that no log may show"
NO_SWEEPS = {"DISPATCH_INTERVAL_SECONDS": 600}
RELAY_OFTEN = {"RELAY_INTERVAL_SECONDS": 1}
NO_RELAY = {"RELAY_INTERVAL_SECONDS": 600}
LONG_LEASE = {"LEASE_SECONDS": 600}


class TestWhatIsCommitted:
    """One worker serves the three databases, and learns of everything by kicks alone."""

    @pytest.fixture
    def aliases(self) -> list[str]:
        servers.require("postgresql")
        servers.require("mariadb")
        return ["default", "postgresql", "mariadb"]

    @pytest.fixture
    def celery_worker(self, workers: Workers) -> DjangoWorker:
        return workers.start(
            settings={"PARVIRAPTOR_CONFIG": NO_SWEEPS, "JAIMINHO_CONFIG": NO_RELAY}
        )

    def test_it_arrives_at_once_and_what_is_rolled_back_never(
        self, celery_setup: CeleryTestSetup, aliases: list[str]
    ) -> None:
        worker = celery_setup.worker
        for alias in aliases:
            with transaction.atomic(using=alias):
                FifoJob.enqueue(using=alias, script=SECRET)
                celery_setup.app.send_task("e2e.note", [alias, "rolled back"], outbox_using=alias)
                transaction.set_rollback(True, using=alias)
            with transaction.atomic(using=alias):
                job = FifoJob.enqueue(using=alias, script=SECRET)
                celery_setup.app.send_task("e2e.note", [alias, SECRET], outbox_using=alias)
            worker.wait_until(lambda job=job: status(job) == "PROCESSED", "the job to be done")  # type: ignore[misc]
            worker.wait_until(
                lambda alias=alias: bool(notes("message", using=alias)), "the message"
            )  # type: ignore[misc]
            assert notes("began", using=alias) == [f"began {job.pk}"]
            assert notes("message", using=alias) == [f"message {SECRET}"]
            assert cost(job) == ("PROCESSED", 1, 0, 0)
        worker.assert_log_exists("Task e2e.note")
        worker.assert_log_does_not_exist(SECRET, timeout=0)


def test_a_job_that_nobody_kicked_is_found_by_a_worker_alone(
    celery_setup: CeleryTestSetup, alias: str
) -> None:
    (job,) = FifoJob.rows(alias).bulk_create([FifoJob()])
    celery_setup.worker.wait_until(lambda: status(job) == "PROCESSED", "the worker's own sweep")
    ticks = set(Tick.objects.using(alias).values_list("name", flat=True))
    assert {"dispatch", "dispatch:worker"} <= ticks
    assert "dispatch:beat" not in ticks


def test_events_that_keep_their_order_are_relayed_by_the_worker(
    celery_setup: CeleryTestSetup, alias: str
) -> None:
    worker = celery_setup.worker
    with transaction.atomic(using=alias):
        for number in range(5):
            in_order(f"{number} {SECRET}")
    worker.wait_until(lambda: len(notes("event")) == 5, "the events")
    assert notes("event") == [f"event {number} {SECRET}" for number in range(5)]
    worker.wait_until(lambda: not Event.objects.filter(sent_at=None).exists(), "their settling")
    worker.assert_log_exists("Task jaiminho_celery.relay_events")
    worker.assert_log_does_not_exist(SECRET, timeout=0)


class TestKills:
    @pytest.fixture
    def celery_worker(self, workers: Workers) -> DjangoWorker:
        return workers.start(settings={"PARVIRAPTOR_CONFIG": LONG_LEASE})

    def test_a_job_outlives_the_child_and_then_the_worker_that_ran_it(
        self, celery_setup: CeleryTestSetup, alias: str, hold: Hold
    ) -> None:
        worker = celery_setup.worker
        hold.take()
        job = FifoJob.enqueue(using=alias)
        worker.wait_until(lambda: hold.waiting_bodies() == 1, "the body to begin")
        (child,) = worker.children()
        child.kill()
        child.wait(SECONDS)
        hold.forget_the_dead()
        let_leases_run_out(FifoJob)
        worker.wait_until(lambda: hold.waiting_bodies() == 1, "the next child to begin it")
        worker.kill()
        assert worker.container.status == "exited"
        hold.forget_the_dead()
        let_leases_run_out(FifoJob)
        hold.let_go()
        worker.restart()
        worker.wait_until(lambda: status(job) == "PROCESSED", "the next worker to finish it")
        assert cost(job) == ("PROCESSED", 3, 0, 2)
        assert notes("ended") == [f"ended {job.pk}"]


class TestBroker:
    @pytest.fixture
    def celery_worker(self, workers: Workers, settings: Any) -> DjangoWorker:
        settings.JAIMINHO_CONFIG = RELAY_OFTEN
        return workers.start(settings={"JAIMINHO_CONFIG": RELAY_OFTEN})

    def test_nothing_is_lost_while_the_broker_is_gone(
        self, celery_setup: CeleryTestSetup, alias: str, hold: Hold
    ) -> None:
        worker, broker = celery_setup.worker, celery_setup.broker
        hold.take()
        jobs = [FifoJob.enqueue(using=alias)]
        worker.wait_until(lambda: hold.waiting_bodies() == 1, "the body to begin")
        jobs += [FifoJob.enqueue(using=alias)]

        broker.kill()
        with transaction.atomic(using=alias):
            jobs += [FifoJob.enqueue(using=alias)]
            celery_setup.app.send_task("e2e.note", [alias, "sent in vain"], outbox_using=alias)
            in_order("published in vain")
        hold.let_go()
        broker.restart()

        worker.wait_until(lambda: {status(job) for job in jobs} == {"PROCESSED"}, "the jobs")
        worker.wait_until(lambda: notes("message") == ["message sent in vain"], "the message")
        worker.wait_until(lambda: notes("event") == ["event published in vain"], "the event")
        assert notes("began") == [f"began {job.pk}" for job in jobs]
        assert [cost(job) for job in jobs] == [("PROCESSED", 1, 0, 0)] * 3


class TestCluster:
    @pytest.fixture
    def celery_worker_cluster(self, workers: Workers) -> Iterator[CeleryWorkerCluster]:
        cluster = workers.cluster(2, settings={"PARVIRAPTOR_CONFIG": {"KICK_JOBS": 1}})
        yield cluster
        cluster.teardown()

    def test_two_workers_run_one_lane_in_order(
        self, celery_setup: CeleryTestSetup, alias: str
    ) -> None:
        jobs: list[FifoJob] = []

        def both_have_run_some() -> bool:
            jobs.append(FifoJob.enqueue(using=alias))
            return len(set(notes("host"))) == len(celery_setup.worker_cluster) == 2

        first, _ = celery_setup.worker_cluster
        first.wait_until(both_have_run_some, "both workers to run jobs")
        first.wait_until(lambda: status(jobs[-1]) == "PROCESSED", "the last job")
        expected = [f"{word} {job.pk}" for job in jobs for word in ("began", "ended")]
        assert notes("began", "ended") == expected
        assert {cost(job) for job in jobs} == {("PROCESSED", 1, 0, 0)}
