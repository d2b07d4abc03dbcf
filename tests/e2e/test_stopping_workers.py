"""Celery workers that are told to stop, or are killed, while a long job runs.

Each line of the table in docs/operations.md, "Stopping workers", has its test here.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_celery import CeleryTestSetup, RedisTestBroker

from tests.e2e.jobs import Hold, cost, enqueue, let_leases_run_out, notes, row, status
from tests.e2e.nodes import SECONDS, DjangoWorker, Workers
from tests.testapp.models import AtomicJob, FifoJob, FreeJob

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")
SOFT = {"REMAP_SIGTERM": "SIGQUIT"}
NO_NOTICE = "take no notice"


# The tests let leases run out; no busy machine may be faster.
LONG_LEASE = {"PARVIRAPTOR_CONFIG": {"LEASE_SECONDS": 60, "DISPATCH_INTERVAL_SECONDS": 1}}


def soft_shutdown(seconds: float) -> dict[str, Any]:
    return {"CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": seconds}


@pytest.fixture
def celery_broker(processes_redis_broker: RedisTestBroker) -> RedisTestBroker:
    """One kind of broker is enough here: what stops is the worker."""
    return processes_redis_broker


@pytest.fixture
def celery_worker_cluster() -> None:
    """Workers come and go in these tests."""


def begun(worker: DjangoWorker, job: Any, times: int = 1) -> None:
    worker.wait_until(lambda: notes("began").count(f"began {job.pk}") >= times, "the body to begin")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_job_that_hands_itself_back_is_finished_by_the_next_worker_at_no_cost(
    workers: Workers, hold: Hold, pool: str
) -> None:
    (job,) = enqueue(FifoJob)
    hold.take()
    first, second = workers.start(f"--pool={pool}"), workers.stand_by()
    begun(first, job)

    first.kill("SIGTERM")
    first.wait_until(lambda: status(job) == "NEW", "the job to be handed back")
    assert notes("told") == [f"told {job.pk}"]
    second.set_to_work()
    begun(second, job, times=2)
    assert not first.has_ended, "it waits for its body, and the job is running elsewhere already"
    hold.let_go()

    assert first.exit_status() == 0, first.logs()
    second.wait_until(lambda: status(job) == "PROCESSED", "the next worker to finish it")
    assert cost(job) == ("PROCESSED", 2, 0, 0)


def test_a_job_that_takes_no_notice_is_finished_and_its_lane_goes_on_elsewhere(
    workers: Workers,
    hold: Hold,
) -> None:
    job, successor = enqueue(FifoJob, 2, script=NO_NOTICE)
    hold.take()
    first, second = workers.start(), workers.stand_by()
    begun(first, job)
    first.kill("SIGTERM")
    first.wait_until(lambda: notes("told") == [f"told {job.pk}"], "the job to be told")
    hold.let_go()

    assert first.exit_status() == 0, first.logs()
    assert (status(job), status(successor)) == ("PROCESSED", "NEW")
    second.set_to_work()
    second.wait_until(lambda: status(successor) == "PROCESSED", "the next one")
    assert cost(job) == cost(successor) == ("PROCESSED", 1, 0, 0)


def test_jobs_of_a_batch_that_have_not_begun_are_put_back_at_no_cost(
    workers: Workers, hold: Hold
) -> None:
    jobs = enqueue(FreeJob, 4, script=NO_NOTICE)
    hold.take()
    first, second = workers.start(), workers.stand_by()
    begun(first, jobs[0])
    first.kill("SIGTERM")
    first.wait_until(lambda: bool(notes("told")), "the job to be told")
    hold.let_go()
    assert first.exit_status() == 0, first.logs()
    assert [status(job) for job in jobs] == ["PROCESSED", "NEW", "NEW", "NEW"]

    second.set_to_work()
    second.wait_until(lambda: {status(job) for job in jobs} == {"PROCESSED"}, "the others")
    assert {cost(job)[2:] for job in jobs} == {(0, 0)}


def test_a_job_of_an_atomic_queue_is_handed_back_and_its_first_body_undone(
    workers: Workers,
    hold: Hold,
) -> None:
    (job,) = enqueue(AtomicJob, script="write")
    hold.take()
    first, second = workers.start(), workers.stand_by()
    first.wait_until(lambda: status(job) == "PROCESSING", "the claim")
    first.wait_until(lambda: hold.waiting_bodies() == 1, "the body to wait")
    first.kill("SIGTERM")
    first.wait_until(lambda: status(job) == "NEW", "the job to be handed back")
    hold.let_go()
    assert first.exit_status() == 0, first.logs()
    assert notes("effect") == []
    second.set_to_work()
    second.wait_until(lambda: status(job) == "PROCESSED", "the next worker to finish it")
    assert notes("effect") == [f"effect {job.pk}"]


def test_a_soft_shutdown_tells_the_job_at_once_and_cuts_it_off_at_the_end(
    workers: Workers, hold: Hold
) -> None:
    (job,) = enqueue(FifoJob)
    hold.take()
    first, second = workers.start(settings=soft_shutdown(6), **SOFT), workers.stand_by()
    begun(first, job)
    first.kill("SIGTERM")
    first.wait_until(lambda: status(job) == "NEW", "the job to be handed back")
    assert not first.has_ended, "the soft shutdown has not ended yet"
    first.exit_status()
    hold.let_go()
    assert "Initiating Soft Shutdown" in first.logs()
    assert notes("ended") == [], "the body was cut off"

    second.set_to_work()
    second.wait_until(lambda: status(job) == "PROCESSED", "the next worker to finish it")
    assert cost(job) == ("PROCESSED", 2, 0, 0)


def test_a_job_that_ends_within_the_soft_shutdown_is_recorded(workers: Workers, hold: Hold) -> None:
    (job,) = enqueue(FifoJob, script=NO_NOTICE)
    hold.take()
    first = workers.start(settings=soft_shutdown(60), **SOFT)
    begun(first, job)
    first.kill("SIGTERM")
    first.wait_until(lambda: bool(notes("told")), "the job to be told")
    hold.let_go()
    first.wait_until(lambda: status(job) == "PROCESSED", "its end")
    assert not first.has_ended, "Celery waits to the end of the soft shutdown"
    assert cost(job) == ("PROCESSED", 1, 0, 0)


@pytest.mark.parametrize("soft", [0, 0.5])
def test_a_job_that_is_cut_off_by_a_cold_shutdown_waits_for_its_lease_and_counts_a_death(
    workers: Workers, hold: Hold, soft: float
) -> None:
    (job,) = enqueue(FifoJob, script=NO_NOTICE)
    hold.take()
    first, second = workers.start(settings=soft_shutdown(soft)), workers.stand_by()
    begun(first, job)
    first.kill("SIGQUIT")
    first.exit_status()
    assert status(job) == "PROCESSING", "the lease is not over"
    hold.let_go()
    second.set_to_work()
    second.wait_until(lambda: status(job) == "PROCESSED", "the rescue")
    assert cost(job) == ("PROCESSED", 2, 0, 1)
    assert notes("ended") == [f"ended {job.pk}"]


@pytest.mark.parametrize("victim", ["main process", "child"])
def test_a_killed_worker_costs_a_death_and_the_third_fails_the_job(
    workers: Workers, hold: Hold, victim: str
) -> None:
    job, waiting = enqueue(FreeJob, 2)
    hold.take()
    worker = workers.start(settings=LONG_LEASE)
    for death in range(1, 4):
        begun(worker, job, times=death)
        if victim == "child":
            (child,) = worker.children()
            child.kill()
            child.wait(SECONDS)
        else:
            worker.kill()
            worker.restart()
        let_leases_run_out(FreeJob)
        worker.wait_until(lambda death=death: cost(job)[3] == death, f"death {death}")  # type: ignore[misc]
        hold.forget_the_dead()
    assert status(job) == "FAILED"
    assert "worker died 3 times" in row(job).error_message
    hold.let_go()
    worker.wait_until(lambda: status(waiting) == "PROCESSED", "the job that waited behind it")
    assert cost(waiting)[2:] == (0, 0)


def test_a_child_that_is_replaced_after_so_many_tasks_is_not_told_to_stop(
    workers: Workers, hold: Hold, celery_setup: CeleryTestSetup
) -> None:
    worker = workers.start("--max-tasks-per-child=3")
    worker.wait_until(lambda: len(worker.children()) == 1, "a child")
    (first,) = worker.children()
    for _ in range(3):
        celery_setup.app.send_task("parviraptor_celery.dispatch_jobs")
    worker.wait_until(lambda: not first.is_running(), "its replacement, after three tasks")

    hold.take()
    (job,) = enqueue(FifoJob)
    begun(worker, job)
    assert notes("told") == []
    worker.kill("SIGTERM")
    worker.wait_until(lambda: status(job) == "NEW", "a child that came later to hear of the stop")
    hold.let_go()
    assert worker.exit_status() == 0, worker.logs()


@pytest.mark.parametrize("way", ["SIGHUP", "remote control"])
def test_a_worker_that_ends_without_celerys_signal_tells_its_jobs_too(
    workers: Workers, hold: Hold, celery_setup: CeleryTestSetup, way: str
) -> None:
    (job,) = enqueue(FifoJob)
    hold.take()
    worker = workers.start()
    begun(worker, job)
    if way == "SIGHUP":
        worker.kill("SIGHUP")
    else:
        celery_setup.app.control.shutdown()
    worker.wait_until(lambda: status(job) == "NEW" or len(notes("began")) > 1, "the hand-back")
    assert notes("told") == [f"told {job.pk}"]
    hold.let_go()
