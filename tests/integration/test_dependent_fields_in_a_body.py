"""A body can't move its job to another lane: what it sets there is refused, not dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from parviraptor_celery import broker
from parviraptor_celery.exceptions import DeferJob, LaneChanged
from tests.integration.working_off import enqueue, statuses, work_off
from tests.testapp.models import AtomicJob, LaneJob, Note


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr(broker, "kick", lambda *_, **__: True)


@pytest.fixture(params=[LaneJob, AtomicJob])
def queue(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def outcome_of(
    using: str, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Any], None]], Any]:
    """Run one job with a body of the test's and return its row."""

    def run(body: Callable[[Any], None]) -> Any:
        monkeypatch.setattr(queue, "process", body)
        enqueue(queue, using, [""], shop="a")
        work_off(queue, using)
        return queue.rows(using).get()

    return run


def test_what_it_sets_fails_its_job_and_nothing_of_it_is_saved(outcome_of: Any, using: str) -> None:
    def body(job: Any) -> None:
        job.shop, job.result = "other", 7

    row = outcome_of(body)
    assert (row.status, row.shop, row.result, row.attempt) == ("FAILED", "a", None, 1)
    assert "shop" in row.error_message
    assert "can't change" in row.error_message


@pytest.mark.parametrize("options", [{}, {"update_fields": ["result"]}], ids=["all", "some"])
def test_save_refuses_it(outcome_of: Any, options: dict[str, Any]) -> None:
    refused: list[str] = []

    def body(job: Any) -> None:
        before, job.shop, job.result = job.shop, "other", 7
        try:
            job.save(**options)
        except LaneChanged as error:
            refused.append(str(error))
            job.shop = before

    row = outcome_of(body)
    assert (row.status, row.shop, row.result) == ("PROCESSED", "a", 7)
    assert "shop" in refused[0]


def test_a_refused_save_fails_the_job_and_undoes_an_atomic_body(
    outcome_of: Any, queue: Any, using: str
) -> None:
    def body(job: Any) -> None:
        Note.objects.using(using).create(text="written")
        job.shop = "other"
        job.save()

    row = outcome_of(body)
    assert (row.status, row.shop) == ("FAILED", "a")
    assert "LaneChanged" in row.error_traceback
    assert Note.objects.using(using).exists() == (queue is LaneJob)


def test_what_is_no_value_for_the_field_fails_the_job_too(outcome_of: Any) -> None:
    def body(job: Any) -> None:
        job.shop = None

    row = outcome_of(body)
    assert (row.status, row.shop) == ("FAILED", "a")
    assert "shop" in row.error_message


def test_another_outcome_does_not_hide_it(outcome_of: Any) -> None:
    def body(job: Any) -> None:
        job.shop = "other"
        raise DeferJob

    row = outcome_of(body)
    assert row.status == "FAILED"
    assert "shop" in row.error_message


def test_it_hides_no_failure(outcome_of: Any) -> None:
    def body(job: Any) -> None:
        job.shop = "other"
        raise ValueError("the reason")

    row = outcome_of(body)
    assert (row.status, row.error_message) == ("FAILED", "the reason")


@pytest.mark.parametrize("using", ["postgresql"], indirect=True)
def test_the_same_value_in_other_words_is_none(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(job: Any) -> None:
        job.number = "5"
        job.save()

    monkeypatch.setattr(LaneJob, "process", body)
    enqueue(LaneJob, using, ["", ""], number=5)
    work_off(LaneJob, using)
    assert statuses(LaneJob, using) == ["PROCESSED", "PROCESSED"]


def test_a_job_whose_lane_was_told_otherwise_may_save_itself(
    using: str, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a deploy, or in a fixture: it runs in the lane that it has."""

    def body(job: Any) -> None:
        job.result = 7
        job.save()

    monkeypatch.setattr(queue, "process", body)
    enqueue(queue, using, [""])
    queue.rows(using).update(lane="f" * 32)
    work_off(queue, using)
    assert list(queue.rows(using).values_list("status", "result")) == [("PROCESSED", 7)]
