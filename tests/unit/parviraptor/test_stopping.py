"""A worker is told to stop: what its drains leave, and what its jobs hear."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from parviraptor_celery import kicks, stopping
from parviraptor_celery.dispatch import kick_budget
from parviraptor_celery.drains import Budget, Report, drain, drain_lanes
from parviraptor_celery.tasks import process_jobs
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.jobs import reloaded, statuses

PATIENCE = 10
"""Seconds until a test gives up waiting for a thread."""

Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is a Celery worker's, for the length of the test."""
    monkeypatch.setattr(stopping, "_stop", None)
    monkeypatch.setattr(stopping, "_listener", None)
    stopping.prepare()
    yield
    stopping.announce()  # so that the test's listener ends


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestTheNotice:
    def test_is_seen_in_the_process_that_gives_it(self) -> None:
        assert not stopping.is_stopping()
        stopping.announce()
        stopping.announce()
        assert stopping.is_stopping()

    def test_is_seen_by_every_child_that_was_forked_before_and_after(self) -> None:
        before = [fork(seen) for _ in range(2)]
        stopping.announce()
        assert [exit_code(child) for child in [*before, fork(seen)]] == [0, 0, 0]

    def test_is_also_the_death_of_the_main_process(self) -> None:
        told, telling = os.pipe()

        def main_process() -> None:
            stopping.prepare()
            fork(lambda: seen() or os.write(telling, b"!"))

        assert exit_code(fork(main_process)) == 0
        os.close(telling)
        assert os.read(told, 1) == b"!"
        os.close(told)

    def test_holds_no_longer_than_a_worker_inside_another_process(self) -> None:
        is_over = threading.Event()
        stopping.prepare(is_over.is_set)
        stopping.announce()
        assert stopping.is_stopping()
        is_over.set()
        assert not stopping.is_stopping()

    def test_a_process_that_is_no_worker_knows_of_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stopping, "_stop", None)
        stopping.announce()
        assert not stopping.is_stopping()


class Job:
    """A job as far as `stopping` knows it."""

    class _meta:
        label = "shop.Job"

    pk = 7

    def __init__(self) -> None:
        self.told, self.threads = threading.Event(), list[Any]()

    def on_job_terminated(self) -> None:
        self.threads.append(threading.current_thread())
        self.told.set()


class TestAJobThatRuns:
    def test_is_told_once_in_a_thread_of_its_own(self) -> None:
        job: Any = Job()
        with stopping.heard_by(job):
            stopping.announce()
            assert job.told.wait(PATIENCE)
            stopping.tell_jobs()
        for thread in job.threads:
            thread.join(PATIENCE)
        assert len(job.threads) == 1
        assert threading.current_thread() not in job.threads

    def test_hears_of_it_though_it_begins_later(self) -> None:
        stopping.announce()
        job: Any = Job()
        with stopping.heard_by(job):
            assert job.told.wait(PATIENCE)

    def test_hears_of_it_though_it_begins_when_others_have_been_told(self) -> None:
        first: Any = Job()
        second: Any = Job()
        with stopping.heard_by(first):
            stopping.announce()
            assert first.told.wait(PATIENCE)
        with stopping.heard_by(second):
            assert second.told.wait(PATIENCE)

    def test_hears_nothing_of_a_worker_that_stopped_before_in_this_process(self) -> None:
        is_over = threading.Event()
        stopping.prepare(is_over.is_set)
        first: Any = Job()
        with stopping.heard_by(first):
            stopping.announce()
            assert first.told.wait(PATIENCE)
        is_over.set()
        second: Any = Job()
        with stopping.heard_by(second):
            pass
        assert not second.threads

    def test_hears_nothing_after_its_end(self) -> None:
        job: Any = Job()
        with stopping.heard_by(job):
            pass
        stopping.tell_jobs()
        assert not job.threads

    def test_does_not_suffer_from_an_error_in_on_job_terminated(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        job: Any = Job()

        is_told = threading.Event()

        def fail() -> None:
            job.threads.append(threading.current_thread())
            is_told.set()
            raise ValueError("not now")

        job.on_job_terminated = fail
        with stopping.heard_by(job):
            stopping.tell_jobs()
            assert is_told.wait(PATIENCE)
            job.threads[0].join(PATIENCE)
        assert "shop.Job 7: on_job_terminated() raised" in caplog.text


@pytest.mark.django_db
class TestADrain:
    def test_ends_after_the_job_that_runs_and_the_lane_is_kicked_again(
        self, monkeypatch: pytest.MonkeyPatch, kicked: Kicked
    ) -> None:
        jobs = [LaneJob.enqueue(number=number) for number in (1, 1, 2)]
        monkeypatch.setattr(LaneJob, "process", lambda self: stopping.announce())
        kicked()
        lanes = [jobs[0].lane, jobs[2].lane]
        assert process_jobs(queue="testapp.LaneJob", lanes=lanes) == 1
        assert statuses(LaneJob) == ["PROCESSED", "NEW", "NEW"]
        again = {"queue": "testapp.LaneJob", "using": "default", "lanes": lanes}
        assert kicked() == [(kicks.PROCESS, again)]

    def test_gives_back_what_it_has_not_begun_at_no_cost(
        self, monkeypatch: pytest.MonkeyPatch, kicked: Kicked
    ) -> None:
        FreeJob.enqueue_many(FreeJob() for _ in range(4))
        monkeypatch.setattr(FreeJob, "process", lambda self: stopping.announce())
        kicked()
        assert process_jobs(queue="testapp.FreeJob") == 1
        assert statuses(FreeJob) == ["PROCESSED", "NEW", "NEW", "NEW"]
        assert set(FreeJob.objects.values_list("worker_deaths", "error_count")) == {(0, 0)}
        again = {"queue": "testapp.FreeJob", "using": "default", "lanes": None}
        assert kicked() == [(kicks.PROCESS, again)]

    @pytest.mark.parametrize("queue", [FifoJob, FreeJob])
    def test_begins_nothing_once_the_worker_stops_and_sends_the_kick_on(
        self, queue: Any, kicked: Kicked
    ) -> None:
        job = queue.enqueue()
        stopping.announce()
        kick = {"queue": queue._meta.label, "using": "default", "lanes": job.lane and [job.lane]}
        assert process_jobs(**kick) == 0
        assert (reloaded(job).status, reloaded(job).attempt) == ("NEW", 0)
        assert kicked() == [(kicks.PROCESS, kick)]


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_handed_back_costs_nothing_and_wakes_somebody_else(kicked: Kicked) -> None:
    job = FifoJob.enqueue()
    kicked()
    job.claim()
    assert job.update_job_for_being_resumed()
    row = reloaded(job)
    assert (row.status, row.attempt, row.error_count, row.worker_deaths) == ("NEW", 1, 0, 0)
    again = {"queue": "testapp.FifoJob", "using": "default", "lanes": [job.lane]}
    assert kicked() == [(kicks.PROCESS, again)]


@pytest.mark.django_db
@pytest.mark.parametrize("queue", [FifoJob, FreeJob])
def test_what_a_job_does_after_it_was_handed_back_is_not_recorded(
    queue: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def process(self: Any) -> None:
        stopping.announce()
        assert self.update_job_for_being_resumed()
        self.result = 9

    monkeypatch.setattr(queue, "process", process)
    job = queue.enqueue()
    process_jobs(queue=queue._meta.label, lanes=job.lane and [job.lane])
    assert (reloaded(job).status, reloaded(job).result) == ("NEW", None)
    assert f"{queue._meta.label} {job.pk}: handed back" in caplog.text
    assert "outlived its lease" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_ours_no_longer_can_not_be_handed_back(kicked: Kicked) -> None:
    job = FifoJob.enqueue()
    job.claim()
    FifoJob.rows("default").update(attempt=7)
    kicked()
    assert not job.update_job_for_being_resumed()
    assert kicked() == []


class NoFeed:
    def first(self) -> Any:
        raise AssertionError("a budget that is spent claims nothing")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("budget", [Budget(0, 9), Budget(9, 0), Budget(9, 9, lambda: True)])
def test_a_budget_that_is_spent_before_it_begins_leaves_everything_over(budget: Budget) -> None:
    feed: Any = NoFeed()
    report = Report()
    drain(feed, budget, report)
    assert report.is_exhausted
    assert drain_lanes(lambda lane: feed, ["a", "b"], budget).left_over == ["a", "b"]


def test_a_kick_may_spend_nothing_once_the_worker_stops() -> None:
    budget = kick_budget()
    assert not budget.is_spent
    stopping.announce()
    assert budget.is_spent


def fork(body: Callable[[], Any]) -> int:
    """Run `body` in a child; its exit status is 1 if it raises."""
    if child := os.fork():
        return child
    try:
        body()
    except BaseException:
        os._exit(1)
    os._exit(0)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def seen() -> None:
    """Wait for the notice."""
    assert stopping._stop is not None
    stopping._stop.wait()
