"""The Celery tasks, as a worker runs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry
from django.utils import timezone

from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.conftest import messages
from tests.unit.jobs import reloaded, statuses

pytestmark = pytest.mark.django_db

Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]


@pytest.fixture
def run_task(celery_in_memory: Celery) -> Callable[..., Any]:
    """Run a task as a worker would, not eagerly."""

    def run(name: str, **kwargs: Any) -> Any:
        task = celery_in_memory.tasks[f"parviraptor_celery.{name}"]
        with requested(task, kwargs):
            return task.run(**kwargs)

    messages(celery_in_memory)
    return run


@contextmanager
def requested(task: Any, kwargs: dict[str, Any]) -> Any:
    task.push_request(id="1", kwargs=kwargs, called_directly=False, is_eager=False, retries=0)
    try:
        yield
    finally:
        task.pop_request()


class TestProcessJobs:
    def test_works_off_the_lanes_it_is_told(self, run_task: Any) -> None:
        told, other = LaneJob.objects.create(shop="a"), LaneJob.objects.create(shop="b")
        behind = LaneJob.objects.create(shop="a")
        assert run_task("process_jobs", queue="testapp.LaneJob", lanes=[told.lane]) == 2
        assert {reloaded(told).status, reloaded(behind).status} == {"PROCESSED"}
        assert reloaded(other).status == "NEW"

    def test_works_off_an_independent_queue(self, run_task: Any) -> None:
        FreeJob.objects.bulk_create(FreeJob() for _ in range(25))
        assert run_task("process_jobs", queue="testapp.FreeJob") == 25

    def test_does_nothing_when_it_comes_twice(self, run_task: Any) -> None:
        job = FifoJob.objects.create()
        arguments = {"queue": "testapp.FifoJob", "lanes": [job.lane]}
        assert run_task("process_jobs", **arguments) == 1
        assert run_task("process_jobs", **arguments) == 0
        assert reloaded(job).result == 1

    @pytest.mark.parametrize("label", ["testapp.NoSuchJob", "nowhere.Job", "nonsense", "", None])
    def test_leaves_a_queue_alone_that_it_does_not_know_and_says_so(
        self, run_task: Any, caplog: pytest.LogCaptureFixture, label: Any
    ) -> None:
        FreeJob.objects.create()
        with caplog.at_level(logging.WARNING):
            assert run_task("process_jobs", queue=label) == 0
        assert repr(label) in caplog.text
        assert statuses(FreeJob) == ["NEW"]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"using": "nowhere"},
            {"using": None},
            {"using": ["default"]},
            {"using": "default'; DROP TABLE testapp_lanejob; --"},
            {"queue": ["testapp.LaneJob"]},
            {"queue": {"testapp": "LaneJob"}},
            {"queue": "testapp.LaneJob'; DROP TABLE testapp_lanejob; --"},
            {"queue": "testapp.Note"},
            {"lanes": "a"},
            {"lanes": 7},
            {"lanes": {"lane": 1}},
            {"lanes": [None, 7, ["a"], {}, "a", "A" * 32, "' OR 1 = 1 --"]},
        ],
        ids=str,
    )
    def test_leaves_a_kick_alone_that_makes_no_sense_and_asks_for_no_other(
        self,
        run_task: Any,
        kicked: Kicked,
        caplog: pytest.LogCaptureFixture,
        arguments: dict[str, Any],
    ) -> None:
        job = LaneJob.objects.create()
        kicked()
        sound = {"queue": "testapp.LaneJob", "lanes": [job.lane]}
        with caplog.at_level(logging.WARNING):
            assert run_task("process_jobs", **{**sound, **arguments}) == 0
        assert "left alone" in caplog.text
        assert kicked() == []
        assert statuses(LaneJob) == ["NEW"]

    def test_works_off_the_lanes_among_what_are_none(self, run_task: Any) -> None:
        job = LaneJob.objects.create()
        assert run_task("process_jobs", queue="testapp.LaneJob", lanes=[7, job.lane, "x"]) == 1

    def test_shows_as_retry_when_it_put_a_job_back_and_others_went_on(
        self, run_task: Any, celery_in_memory: Celery
    ) -> None:
        failing = LaneJob.objects.create(shop="a", script="temporary away")
        fine = LaneJob.objects.create(shop="b")
        lanes = [failing.lane, fine.lane]
        with pytest.raises(Retry) as retried:
            run_task("process_jobs", queue="testapp.LaneJob", lanes=lanes)
        assert retried.value.when == 60
        assert reloaded(fine).status == "PROCESSED"
        assert reloaded(failing).run_after > timezone.now()
        [message] = messages(celery_in_memory)
        assert message.headers["task"] == "parviraptor_celery.process_jobs"
        assert message.payload[1]["lanes"] == [failing.lane]
        assert datetime.fromisoformat(message.headers["eta"]) <= timezone.now() + timedelta(
            seconds=60
        )

    def test_comes_back_at_the_earliest_time_at_which_something_is_due(self, run_task: Any) -> None:
        later = LaneJob.objects.create(shop="a", script="temporary away", error_count=3)
        sooner = LaneJob.objects.create(shop="b", script="temporary away", error_count=1)
        with pytest.raises(Retry) as retried:
            run_task("process_jobs", queue="testapp.LaneJob", lanes=[later.lane, sooner.lane])
        assert retried.value.when == 120

    def test_has_those_that_are_due_later_kicked_at_their_time(
        self, run_task: Any, celery_in_memory: Celery
    ) -> None:
        later = LaneJob.objects.create(shop="a", script="temporary away", error_count=3)
        sooner = LaneJob.objects.create(shop="b", script="temporary away", error_count=1)
        messages(celery_in_memory)
        with pytest.raises(Retry):
            run_task("process_jobs", queue="testapp.LaneJob", lanes=[later.lane, sooner.lane])
        due = {
            message.payload[1]["lanes"][0]: datetime.fromisoformat(message.headers["eta"])
            for message in messages(celery_in_memory)
        }
        assert timedelta(minutes=5.5) < due[later.lane] - due[sooner.lane] < timedelta(minutes=6.5)

    def test_caps_its_countdown_while_the_row_keeps_the_whole_pause(self, run_task: Any) -> None:
        job = LaneJob.objects.create(script="temporary away", error_count=5)
        with pytest.raises(Retry) as retried:
            run_task("process_jobs", queue="testapp.LaneJob", lanes=[job.lane])
        assert retried.value.when == 600
        assert reloaded(job).run_after > timezone.now() + timedelta(minutes=31)

    def test_retries_for_ever(self, celery_in_memory: Celery) -> None:
        assert celery_in_memory.tasks["parviraptor_celery.process_jobs"].max_retries is None

    def test_makes_room_after_its_share_and_says_what_is_left(
        self, run_task: Any, settings: Any, kicked: Kicked
    ) -> None:
        settings.PARVIRAPTOR_CONFIG = {"KICK_JOBS": 3}
        lanes = [LaneJob.objects.create(shop=shop).lane for shop in "aabb"]
        first, second = lanes[0], lanes[2]
        assert run_task("process_jobs", queue="testapp.LaneJob", lanes=[first, second]) == 3
        [(task, arguments)] = kicked()
        assert task == "parviraptor_celery.process_jobs"
        assert second in arguments["lanes"]
        assert run_task("process_jobs", **arguments) == 1

    def test_makes_room_after_its_share_of_an_independent_queue(
        self, run_task: Any, settings: Any, kicked: Kicked
    ) -> None:
        settings.PARVIRAPTOR_CONFIG = {"KICK_JOBS": 3}
        FreeJob.objects.bulk_create(FreeJob() for _ in range(5))
        assert run_task("process_jobs", queue="testapp.FreeJob") == 3
        [(_, arguments)] = kicked()
        assert run_task("process_jobs", **arguments) == 2

    def test_is_acknowledged_early_since_recovery_comes_from_the_lease(
        self, celery_in_memory: Celery
    ) -> None:
        for name in ("process_jobs", "dispatch_jobs", "clean_jobs"):
            assert celery_in_memory.tasks[f"parviraptor_celery.{name}"].acks_late is False


class TestDispatchJobs:
    def test_rescues_and_kicks(self, run_task: Any, kicked: Kicked) -> None:
        dead = FifoJob.objects.create()
        dead.claim()
        FifoJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert run_task("dispatch_jobs") is True
        assert reloaded(dead).status == "NEW"
        assert [arguments["lanes"] for _, arguments in kicked()] == [[dead.lane]]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"queue": "testapp.NoSuchJob"},
            {"queue": 7},
            {"queue": "testapp.LaneJob", "using": "nowhere"},
            {"queue": "testapp.FreeJob"},
            {"queue": "testapp.LaneJob", "after": ["x"]},
        ],
        ids=str,
    )
    def test_leaves_a_walk_alone_that_makes_no_sense(
        self, run_task: Any, kicked: Kicked, arguments: dict[str, Any]
    ) -> None:
        run_task("dispatch_jobs", **arguments)
        assert kicked() == []

    def test_of_two_ticks_one_does_the_work(self, run_task: Any) -> None:
        assert [run_task("dispatch_jobs"), run_task("dispatch_jobs")] == [True, False]


class TestCleanJobs:
    def test_deletes_what_is_too_old(self, run_task: Any) -> None:
        old = timezone.now() - timedelta(days=8)
        FreeJob.objects.create(status="PROCESSED", modification_date=old)
        FreeJob.objects.create(status="PROCESSED")
        assert run_task("clean_jobs") == 1
        assert FreeJob.objects.count() == 1
