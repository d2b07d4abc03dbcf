"""Kicks: when a worker is woken, with what, and what happens when the broker is away."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from django.db import transaction

from parviraptor_celery import broker, kicks, signals, sweep, tasks
from parviraptor_celery.exceptions import InvalidDependentField
from parviraptor_celery.models import Tick
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.conftest import using_celery
from tests.unit.jobs import received, reloaded, statuses

Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]

PROCESS, DISPATCH = "parviraptor_celery.process_jobs", "parviraptor_celery.dispatch_jobs"

commits = pytest.mark.django_db(transaction=True)


@commits
class TestAfterTheCommit:
    def test_a_worker_hears_of_a_job(self, kicked: Kicked) -> None:
        job = LaneJob.enqueue(shop="a")
        [(task, arguments)] = kicked()
        assert task == PROCESS
        assert arguments == {"queue": "testapp.LaneJob", "using": "default", "lanes": [job.lane]}

    def test_a_worker_hears_of_an_independent_job(self, kicked: Kicked) -> None:
        FreeJob.enqueue()
        [(task, arguments)] = kicked()
        assert (task, arguments["queue"]) == (PROCESS, "testapp.FreeJob")
        assert not arguments.get("lanes")

    def test_and_not_before(self, kicked: Kicked) -> None:
        with transaction.atomic():
            FreeJob.enqueue()
            assert kicked() == []
        assert len(kicked()) == 1

    def test_nobody_hears_of_it_in_a_silence(self, kicked: Kicked) -> None:
        with broker.silence():
            FreeJob.enqueue()
        assert kicked() == []
        FreeJob.enqueue()
        assert len(kicked()) == 1

    def test_nobody_hears_of_what_was_rolled_back(self, kicked: Kicked) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            FreeJob.enqueue()
            raise ZeroDivisionError
        assert kicked() == []

    def test_a_savepoint_takes_its_kicks_along_and_no_others(self, kicked: Kicked) -> None:
        with transaction.atomic():
            kept = LaneJob.enqueue(shop="kept")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                LaneJob.enqueue(shop="kept")
                LaneJob.enqueue(shop="gone")
                raise ZeroDivisionError
        assert [arguments["lanes"] for _, arguments in kicked()] == [[kept.lane]]

    def test_a_lane_that_a_savepoint_lost_is_kicked_for_its_next_job(self, kicked: Kicked) -> None:
        with transaction.atomic():
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                LaneJob.enqueue(shop="a")
                raise ZeroDivisionError
            job = LaneJob.enqueue(shop="a")
        assert [arguments["lanes"] for _, arguments in kicked()] == [[job.lane]]

    def test_jobs_of_one_lane_kick_once(self, kicked: Kicked) -> None:
        with transaction.atomic():
            for _ in range(5):
                LaneJob.enqueue(shop="a")
            LaneJob.enqueue(shop="b")
        assert len(kicked()) == 2

    def test_nobody_is_woken_for_a_lane_that_is_running(self, kicked: Kicked) -> None:
        FifoJob.enqueue().claim()
        kicked()
        FifoJob.enqueue()
        assert kicked() == []

    def test_a_retried_job_wakes_a_worker(self, kicked: Kicked) -> None:
        job = FifoJob.objects.create(status="FAILED")
        job.retry()
        assert [arguments["lanes"] for _, arguments in kicked()] == [[job.lane]]

    def test_kicks_carry_names_only(self, kicked: Kicked) -> None:
        LaneJob.enqueue(shop="SECRET", script="SECRET")
        assert "SECRET" not in json.dumps(kicked())


@commits
class TestEnqueueMany:
    def test_kicks_every_lane_after_the_commit(self, kicked: Kicked) -> None:
        with transaction.atomic():
            jobs = LaneJob.enqueue_many(LaneJob(shop=shop) for shop in "abca")
            assert kicked() == []
        lanes = [lane for _, arguments in kicked() for lane in arguments["lanes"]]
        assert sorted(lanes) == sorted({job.lane for job in jobs})

    def test_sends_about_a_hundred_messages_at_most(self, kicked: Kicked) -> None:
        jobs = LaneJob.enqueue_many(LaneJob(number=number) for number in range(250))
        sent = kicked()
        assert len(sent) <= 100
        lanes = [lane for _, arguments in sent for lane in arguments["lanes"]]
        assert sorted(lanes) == sorted({job.lane for job in jobs})

    def test_of_independent_jobs_kicks_the_queue(self, kicked: Kicked) -> None:
        FreeJob.enqueue_many([FreeJob(), FreeJob()])
        assert {task for task, _ in kicked()} == {PROCESS}

    def test_of_nothing_kicks_nobody(self, kicked: Kicked) -> None:
        LaneJob.enqueue_many([])
        assert kicked() == []


def test_beyond_what_messages_hold_a_walk_over_the_queue_is_asked_for(kicked: Kicked) -> None:
    kicks.send(LaneJob, "default", [f"{number:032x}" for number in range(5001)])
    [(task, arguments)] = kicked()
    assert (task, arguments) == (DISPATCH, {"queue": "testapp.LaneJob", "using": "default"})


@commits
@pytest.mark.parametrize(("status", "kicks_sent"), [("NEW", 1), ("DEFERRED", 1), ("PROCESSED", 0)])
def test_a_job_made_by_create_wakes_a_worker_if_it_is_to_run(
    kicked: Kicked, status: str, kicks_sent: int
) -> None:
    FifoJob.objects.create(status=status)
    assert len(kicked()) == kicks_sent


@pytest.mark.django_db
def test_a_walk_kicks_every_lane_and_ends(kicked: Kicked, settings: Any) -> None:
    settings.PARVIRAPTOR_CONFIG = {"SWEEP_LANES": 2}
    lanes = [LaneJob.objects.create(number=number).lane for number in range(5)]
    kicked()
    found, waiting = list[str](), [(DISPATCH, {"queue": "testapp.LaneJob", "using": "default"})]
    while waiting:
        task, arguments = waiting.pop(0)
        if task == DISPATCH:
            tasks.dispatch_jobs(**arguments)
            waiting += kicked()
        else:
            found += arguments["lanes"]
    assert sorted(found) == sorted(lanes)


@commits
class TestABrokerThatIsAway:
    @pytest.fixture(params=["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
    def no_broker(self, request: pytest.FixtureRequest) -> Any:
        app = Celery("nobody", broker=request.param, set_as_current=False)
        with using_celery(app):
            yield app

    def test_delays_nobody_and_loses_nothing(self, no_broker: Celery) -> None:
        begun = time.monotonic()
        with received(signals.kick_failed) as failures:
            jobs = [LaneJob.enqueue(shop=shop) for shop in "abcdef"]
        assert time.monotonic() - begun < 3
        assert {reloaded(job).status for job in jobs} == {"NEW"}
        # The first failure opens the breaker: the others don't even try.
        assert [sent["sender"] for sent in failures] == [PROCESS]

    def test_is_tried_again_later(self, no_broker: Celery, settings: Any, kicked: Kicked) -> None:
        settings.PARVIRAPTOR_CONFIG = {"BROKER_BREAKER_SECONDS": 1e-9}
        with received(signals.kick_failed) as failures:
            FreeJob.enqueue()
            FreeJob.enqueue()
        assert len(failures) == 2


@commits
class TestTheSweep:
    def test_finds_what_no_kick_spoke_of(self, kicked: Kicked) -> None:
        lanes = {LaneJob.objects.create(shop=shop).lane for shop in "abb"}
        FreeJob.objects.create()
        kicked()  # these are lost
        assert sweep.sweep_all()
        sent = kicked()
        found = [lane for _, arguments in sent for lane in arguments.get("lanes") or ()]
        assert sorted(found) == sorted(lanes)
        assert "testapp.FreeJob" in [arguments["queue"] for _, arguments in sent]

    @pytest.mark.parametrize(
        "columns",
        [
            {"status": "PROCESSED"},
            {"status": "FAILED"},
            {"status": "IGNORED"},
            {"status": "SQUASHED"},
        ],
    )
    def test_kicks_nobody_for_what_is_over(self, kicked: Kicked, columns: dict[str, Any]) -> None:
        FifoJob.objects.create(**columns)
        FreeJob.objects.create(**columns)
        sweep.sweep_all()
        assert kicked() == []

    def test_kicks_nobody_for_what_is_not_due_or_running(self, kicked: Kicked) -> None:
        LaneJob.enqueue(shop="later", run_after=timedelta(hours=1))
        LaneJob.enqueue(shop="later")
        LaneJob.enqueue(shop="running").claim()
        LaneJob.enqueue(shop="running")
        FreeJob.enqueue(run_after=timedelta(hours=1))
        kicked()
        sweep.sweep_all()
        assert kicked() == []

    def test_finds_deferred_jobs(self, kicked: Kicked) -> None:
        lane = FifoJob.objects.create(status="DEFERRED").lane
        FreeJob.objects.create(status="DEFERRED")
        kicked()  # these are lost
        sweep.sweep_all()
        assert [arguments.get("lanes") for _, arguments in kicked()] == [[lane], None]

    def test_goes_round_when_there_are_more_lanes_than_it_looks_at(
        self, kicked: Kicked, settings: Any
    ) -> None:
        settings.PARVIRAPTOR_CONFIG = {"SWEEP_LANES": 2}
        lanes = {LaneJob.objects.create(number=number).lane for number in range(5)}
        found: set[str] = set()
        for _ in range(3):
            sweep.sweep_all(force=True)
            found.update(lane for _, arguments in kicked() for lane in arguments["lanes"])
        assert found == lanes
        for _ in range(2):
            sweep.sweep_all(force=True)
        assert kicked()

    def test_is_done_once_when_asked_for_twice(self, kicked: Kicked) -> None:
        FreeJob.objects.create()
        kicked()  # this one is lost
        assert [sweep.sweep_all(), sweep.sweep_all()] == [True, False]
        assert len(kicked()) == 1
        assert sweep.sweep_all(force=True)

    def test_a_job_that_can_have_no_lane_keeps_no_other_from_getting_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad, good = LaneJob.objects.create(), LaneJob.objects.create()
        LaneJob.rows("default").update(lane=None)

        def lane_of(job: LaneJob, names: list[str]) -> str:
            if job.pk == bad.pk:
                raise InvalidDependentField("no lane")
            return "0" * 32

        monkeypatch.setattr(sweep, "lane_of", lane_of)
        sweep.sweep_all()
        assert (reloaded(bad).lane, reloaded(good).lane) == (None, "0" * 32)

    def test_is_done_again_when_its_time_has_come(self) -> None:
        assert sweep.sweep_all()
        Tick.objects.update(last_at="2020-01-01T00:00:00Z")
        assert sweep.sweep_all()


@commits
class TestEagerly:
    def test_a_job_runs_with_its_commit(self, eager: Celery) -> None:
        FreeJob.enqueue()
        FifoJob.enqueue()
        assert statuses(FreeJob) + statuses(FifoJob) == ["PROCESSED"] * 2

    @pytest.mark.parametrize("queue", [FreeJob, FifoJob, LaneJob])
    def test_a_chain_of_jobs_that_each_enqueue_the_next_does_not_recurse(
        self, eager: Celery, queue: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        depths: list[int] = []

        def process(self: Any) -> None:
            depths.append(len(traceback.extract_stack(limit=None)))
            if len(depths) < 200:
                where = {"number": len(depths)} if queue is LaneJob else {}
                queue.enqueue(**where)

        monkeypatch.setattr(queue, "process", process)
        queue.enqueue()
        assert statuses(queue) == ["PROCESSED"] * 200
        assert max(depths) == max(depths[:3])

    def test_a_temporary_failure_does_not_recurse(self, eager: Celery) -> None:
        job = FreeJob.enqueue(script="temporary away")
        assert (reloaded(job).status, reloaded(job).error_count) == ("NEW", 1)
