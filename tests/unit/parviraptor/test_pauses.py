"""What a pause may name, what it says when it can't, and who respects it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.apps import apps

from parviraptor_celery.exceptions import CanNotPause, NotALane
from parviraptor_celery.models import Pause
from parviraptor_celery.signals import queue_paused, queue_resumed
from parviraptor_celery.test import QueueTestCase
from tests.testapp.models import FifoJob, FreeJob, LaneJob, Note, TypedJob
from tests.unit.jobs import received, run_one, statuses, work_off

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("queue", "values", "words"),
    [
        (LaneJob, {"shop": "a"}, r"a lane is named by \(shop=…, number=…\), given were: shop\."),
        (LaneJob, {"shop": "a", "number": 1, "colour": "red"}, "given were: colour, number, shop"),
        (LaneJob, {"shp": "a", "number": 1}, "given were: number, shp"),
        (LaneJob, {"shop": "a", "number": "many"}, r"given were: number, shop\. .* \(\w+\)"),
        (FifoJob, {"shop": "a"}, "its jobs are all in one lane, so no lane can be named"),
        (FreeJob, {"shop": "a"}, "its jobs are independent, so no lane can be named"),
    ],
)
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_values_that_name_no_lane_are_refused_with_what_to_write(
    queue: Any, values: dict[str, Any], words: str, verb: str
) -> None:
    with pytest.raises(NotALane, match=words) as refused:
        getattr(queue, verb)(**values)
    assert f"{queue.__name__}.pause() and .resume() are about the whole queue" in str(refused.value)
    assert not Pause.objects.exists()


def test_a_job_of_an_independent_queue_has_no_lane_to_pause() -> None:
    with pytest.raises(NotALane, match="independent"):
        FreeJob.enqueue().pause_lane()


def test_a_foreign_key_may_be_named_by_its_object_or_its_id() -> None:
    note = Note.objects.create(text="n")
    plain: dict[str, Any] = dict.fromkeys(TypedJob.dependent_fields or ())
    del plain["note"]
    TypedJob.pause(**plain, note=note)
    assert TypedJob.resume(**plain, note_id=note.pk)


def test_a_reason_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CanNotPause, match="at most 200 characters, this one has 201"):
        FreeJob.pause(reason="x" * 201)


def test_a_reason_is_never_taken_for_a_dependent_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LaneJob, "dependent_fields", ["reason"])
    with pytest.raises(NotALane, match=r"job\.pause_lane\(\)"):
        LaneJob.pause(reason="x")


def test_the_foreground_respects_pauses() -> None:
    LaneJob.enqueue()
    FreeJob.enqueue()
    LaneJob.pause()
    FreeJob.pause()
    assert work_off(LaneJob) + work_off(FreeJob) + run_one(FreeJob) == 0
    assert statuses(LaneJob) + statuses(FreeJob) == ["NEW", "NEW"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("queue", [LaneJob, FreeJob])
def test_the_test_api_does_not_wait_for_what_is_paused(queue: Any) -> None:
    queue.pause()
    with pytest.raises(AssertionError, match="are not PROCESSED"):
        QueueTestCase().process_queue(queue, [queue()], 1)


@pytest.mark.django_db(transaction=True)
def test_pausing_and_resuming_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), received(queue_paused) as paused:
        LaneJob.pause(shop="secret", number=0, reason="secret")
    with received(queue_resumed) as resumed:
        LaneJob.resume(shop="secret", number=0)
    [pause], [resumption] = paused, resumed
    assert (pause["sender"], pause["using"]) == (LaneJob, "default")
    assert pause["lane"] == resumption["lane"] != ""
    assert f"testapp.LaneJob in default: lane {pause['lane']} is paused" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.django_db
def test_a_pause_of_a_proxy_pauses_its_queue() -> None:
    class UrgentFifoJob(FifoJob):
        class Meta:
            app_label = "testapp"
            proxy = True

    try:
        FifoJob.enqueue()
        UrgentFifoJob.pause()
        assert work_off(FifoJob) == 0
        assert UrgentFifoJob.resume()
        assert work_off(FifoJob) == 1
    finally:
        del apps.all_models["testapp"]["urgentfifojob"]
        apps.clear_cache()
