"""Celery workers that are told to stop, or are killed, while a long job runs.

Each line of the table in docs/operations.md, "Stopping workers", has its test here.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from tests import servers
from tests.e2e import lives
from tests.e2e.lives import SECONDS, Lives, cost, enqueue, notes, status, wait_for
from tests.supervision import processes
from tests.testapp.models import AtomicJob, FifoJob, FreeJob

EVERYWHERE = pytest.mark.django_db(transaction=True, databases="__all__")
pytestmark = EVERYWHERE
SOFT = {"REMAP_SIGTERM": "SIGQUIT"}


@pytest.fixture
def workers(
    redis_url: str, queue_name: str, supervisor: processes.Supervisor, tmp_path: Path
) -> Iterator[Lives]:
    servers.require("postgresql")
    workers = Lives(supervisor, tmp_path, redis_url, queue_name)
    yield workers
    workers.stop_all()
    options = {"global_keyprefix": f"{queue_name}:"}
    with Connection(redis_url, transport_options=options) as connection:
        client = connection.default_channel.client
        for key in client.scan_iter(match=f"{queue_name}:*"):
            client.delete(str(key.decode()).removeprefix(f"{queue_name}:"))


def begun(worker: processes.Managed, job: Any, times: int = 1) -> None:
    wait_for(worker, lambda: notes("began").count(f"began {job.pk}") >= times, "the body to begin")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_job_that_hands_itself_back_is_finished_by_the_next_worker_at_no_cost(
    workers: Lives, pool: str
) -> None:
    (job,) = enqueue(FifoJob)
    workers.hold()
    first = workers.start(f"--pool={pool}")
    begun(first, job)

    first.send_signal(signal.SIGTERM)
    wait_for(first, lambda: status(job) == "NEW", "the job to be handed back")
    assert notes("told") == [f"told {job.pk}"]
    second = workers.start()
    begun(second, job, times=2)
    assert first.poll() is None, "it waits for its body, and the job is running elsewhere already"
    workers.let_go()

    assert first.wait(SECONDS) == 0, first.log_text()
    wait_for(second, lambda: status(job) == "PROCESSED", "the next worker to finish it")
    assert cost(job) == ("PROCESSED", 2, 0, 0)


def test_a_job_that_takes_no_notice_is_finished_and_its_lane_goes_on_elsewhere(
    workers: Lives,
) -> None:
    job, successor = enqueue(FifoJob, 2)
    workers.hold()
    first = workers.start(on_job_terminated="pass")
    begun(first, job)
    first.send_signal(signal.SIGTERM)
    wait_for(first, lambda: notes("told") == [f"told {job.pk}"], "the job to be told")
    workers.let_go()

    assert first.wait(SECONDS) == 0, first.log_text()
    assert (status(job), status(successor)) == ("PROCESSED", "NEW")
    second = workers.start()
    wait_for(second, lambda: status(successor) == "PROCESSED", "the next one")
    assert cost(job) == cost(successor) == ("PROCESSED", 1, 0, 0)


def test_jobs_of_a_batch_that_have_not_begun_are_put_back_at_no_cost(workers: Lives) -> None:
    jobs = enqueue(FreeJob, 4)
    workers.hold()
    first = workers.start(on_job_terminated="pass")
    begun(first, jobs[0])
    first.send_signal(signal.SIGTERM)
    wait_for(first, lambda: bool(notes("told")), "the job to be told")
    workers.let_go()
    assert first.wait(SECONDS) == 0, first.log_text()
    assert [status(job) for job in jobs] == ["PROCESSED", "NEW", "NEW", "NEW"]

    second = workers.start()
    wait_for(second, lambda: {status(job) for job in jobs} == {"PROCESSED"}, "the others")
    assert {cost(job)[2:] for job in jobs} == {(0, 0)}


def test_a_job_of_an_atomic_queue_is_handed_back_and_its_first_body_undone(
    workers: Lives,
) -> None:
    (job,) = enqueue(AtomicJob)
    workers.hold()
    first = workers.start(body='self.result = 7; note(f"effect {self.pk}")')
    wait_for(first, lambda: status(job) == "PROCESSING", "the claim")
    wait_for(first, lambda: workers.waiting_bodies() == 1, "the body to wait")
    first.send_signal(signal.SIGTERM)
    wait_for(first, lambda: status(job) == "NEW", "the job to be handed back")
    workers.let_go()
    assert first.wait(SECONDS) == 0, first.log_text()
    assert notes("effect") == []
    second = workers.start(body='note(f"effect {self.pk}")')
    wait_for(second, lambda: status(job) == "PROCESSED", "the next worker to finish it")
    assert notes("effect") == [f"effect {job.pk}"]


def test_a_soft_shutdown_tells_the_job_at_once_and_cuts_it_off_at_the_end(workers: Lives) -> None:
    (job,) = enqueue(FifoJob)
    workers.hold()
    first = workers.start(**SOFT, CELERY_SOFT="5")
    begun(first, job)
    first.send_signal(signal.SIGTERM)
    wait_for(first, lambda: status(job) == "NEW", "the job to be handed back")
    assert first.poll() is None, "the soft shutdown has not ended yet"
    first.wait(SECONDS)
    workers.let_go()
    assert "Initiating Soft Shutdown" in first.log_text()
    assert notes("ended") == [], "the body was cut off"

    second = workers.start()
    wait_for(second, lambda: status(job) == "PROCESSED", "the next worker to finish it")
    assert cost(job) == ("PROCESSED", 2, 0, 0)


def test_a_job_that_ends_within_the_soft_shutdown_is_recorded(workers: Lives) -> None:
    (job,) = enqueue(FifoJob)
    workers.hold()
    first = workers.start(**SOFT, CELERY_SOFT="8", on_job_terminated="pass")
    begun(first, job)
    first.send_signal(signal.SIGTERM)
    wait_for(first, lambda: bool(notes("told")), "the job to be told")
    workers.let_go()
    wait_for(first, lambda: status(job) == "PROCESSED", "its end")
    first.wait(SECONDS)
    assert cost(job) == ("PROCESSED", 1, 0, 0)


@pytest.mark.parametrize("soft", ["0", "0.5"])
def test_a_job_that_is_cut_off_by_a_cold_shutdown_waits_for_its_lease_and_counts_a_death(
    workers: Lives, soft: str
) -> None:
    (job,) = enqueue(FifoJob)
    workers.hold()
    first = workers.start(on_job_terminated="pass", CELERY_SOFT=soft)
    begun(first, job)
    first.send_signal(signal.SIGQUIT)
    first.wait(SECONDS)
    assert status(job) == "PROCESSING", "the lease is not over"
    workers.let_go()
    second = workers.start()
    wait_for(second, lambda: status(job) == "PROCESSED", "the rescue")
    assert cost(job) == ("PROCESSED", 2, 0, 1)
    assert notes("ended") == [f"ended {job.pk}"]


@pytest.mark.parametrize("victim", ["main process", "child"])
def test_a_killed_worker_costs_a_death_and_the_third_fails_the_job(
    workers: Lives, victim: str
) -> None:
    job, waiting = enqueue(FreeJob, 2)
    workers.hold()
    worker = workers.start()
    for death in range(1, 4):
        begun(worker, job, times=death)
        if victim == "child":
            (child,) = lives.children(worker)
            child.kill()
        else:
            worker.kill_session()
            worker = workers.start()
        wait_for(worker, lambda death=death: cost(job)[3] == death, f"death {death}")  # type: ignore[misc]
        workers.forget_the_dead()
    assert status(job) == "FAILED"
    assert "worker died 3 times" in lives.row(job).error_message
    workers.let_go()
    wait_for(worker, lambda: status(waiting) == "PROCESSED", "the job that waited behind it")
    assert cost(waiting)[2:] == (0, 0)


def test_a_child_that_is_replaced_after_so_many_tasks_is_not_told_to_stop(workers: Lives) -> None:
    worker = workers.start("--max-tasks-per-child=3")
    wait_for(worker, lambda: len(lives.children(worker)) == 1, "a child")
    (first,) = lives.children(worker)
    wait_for(worker, lambda: not first.is_running(), "its replacement, after three sweeps")

    workers.hold()
    (job,) = enqueue(FifoJob)
    begun(worker, job)
    assert notes("told") == []
    worker.send_signal(signal.SIGTERM)
    wait_for(worker, lambda: status(job) == "NEW", "a child that came later to hear of the stop")
    workers.let_go()
    assert worker.wait(SECONDS) == 0, worker.log_text()


@pytest.mark.parametrize("way", ["SIGHUP", "remote control"])
def test_a_worker_that_ends_without_celerys_signal_tells_its_jobs_too(
    workers: Lives, way: str
) -> None:
    (job,) = enqueue(FifoJob)
    workers.hold()
    worker = workers.start()
    begun(worker, job)
    if way == "SIGHUP":
        worker.send_signal(signal.SIGHUP)
    else:
        workers.shut_down_remotely()
    wait_for(worker, lambda: status(job) == "NEW" or len(notes("began")) > 1, "the hand-back")
    assert notes("told") == [f"told {job.pk}"]
    workers.let_go()
