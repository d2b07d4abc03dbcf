"""What save() refuses of a job that there is, and what a form is told before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.forms import modelform_factory

from parviraptor_celery.dispatch import run_lanes
from parviraptor_celery.drains import Budget
from parviraptor_celery.exceptions import IllegalTransition, InvalidJobOption, LaneChanged
from tests.testapp.models import FifoJob, FreeJob, LaneJob


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def stored(queue: Any, using: str) -> dict[str, Any]:
    row: dict[str, Any] = queue.rows(using).values().get()
    return row


def refused(error: type[Exception], using: str, queue: Any, **changes: Any) -> str:
    """Assert that the change is refused, that nothing is written, and that one can go on."""
    before, job = stored(queue, using), queue.rows(using).get()
    for name, value in changes.items():
        setattr(job, name, value)
    with transaction.atomic(using=using):
        with pytest.raises(error) as caught:
            job.save()
        queue.rows(using).get().save()
    assert stored(queue, using) == before
    return str(caught.value)


# save()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"priority": 2**15}, "priority must lie between"),
        ({"priority": None}, "priority must be a whole number"),
        ({"run_after": "tomorrow"}, "run_after must be a datetime"),
        ({"run_after": datetime(999, 12, 31, tzinfo=UTC)}, "run_after is out of range"),
        ({"status": "WEIRD"}, "status must be one of"),
        ({"status": None}, "status must be one of"),
        ({"unique_key": "other"}, "unique_key is given when a job is created"),
    ],
)
def test_what_can_not_be_stored_is_refused_by_name(
    using: str, changes: dict[str, Any], words: str
) -> None:
    FreeJob.enqueue(using=using)
    assert words in refused(InvalidJobOption, using, FreeJob, **changes)


def test_so_it_is_where_the_columns_are_named(using: str) -> None:
    job = FreeJob.enqueue(using=using)
    job.priority, job.status = 2**15, "WEIRD"
    for name in ("priority", "status"):
        with transaction.atomic(using=using), pytest.raises(InvalidJobOption, match=name):
            job.save(update_fields=[name])
    job.save(update_fields=["script"])


def test_a_key_can_not_be_taken_away_by_save(using: str) -> None:
    FreeJob.enqueue(using=using, unique_key="mine")
    said = refused(InvalidJobOption, using, FreeJob, unique_key=None)
    assert 'save(update_fields=["unique_key"])' in said


def test_a_key_that_is_named_is_written(using: str) -> None:
    job = FreeJob.enqueue(using=using)
    job.unique_key = "mine"
    job.save(update_fields=["unique_key"])
    assert stored(FreeJob, using)["waiting_key"] == "mine"
    job.save()
    for wrong in ("k" * 129, "", "a\0b", 7):
        job.unique_key = wrong
        with transaction.atomic(using=using), pytest.raises(InvalidJobOption, match="unique_key"):
            job.save(update_fields=["unique_key"])
    assert stored(FreeJob, using)["waiting_key"] == "mine"


def test_nobody_but_a_worker_lets_a_job_run_or_ends_its_run(using: str) -> None:
    job = FreeJob.enqueue(using=using)
    assert "only a worker" in refused(IllegalTransition, using, FreeJob, status="PROCESSING")
    assert FreeJob.rows(using).get().claim()
    for status in ("NEW", "PROCESSED", "IGNORED"):
        assert "only a worker" in refused(IllegalTransition, using, FreeJob, status=status)
    assert job.status == "NEW"


def test_an_expression_is_the_databases_matter(using: str) -> None:
    job = FreeJob.enqueue(using=using, priority=3)
    job.priority = F("priority") + 1
    job.save()
    assert stored(FreeJob, using)["priority"] == 4


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"shop": "b"}, LaneChanged),
        ({"unique_key": "other"}, InvalidJobOption),
    ],
)
def test_a_body_that_saves_a_wrong_change_has_failed(
    using: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], error: type[Exception]
) -> None:
    def body(job: Any) -> None:
        for name, value in change.items():
            setattr(job, name, value)
        job.save()

    monkeypatch.setattr(LaneJob, "process", body)
    job = LaneJob.enqueue(using=using)
    run_lanes(LaneJob, using, [str(job.lane)], Budget.endless())
    row = stored(LaneJob, using)
    assert (row["status"], row["shop"], row["unique_key"]) == ("FAILED", "a", None)
    assert error.__name__ in row["error_traceback"]


# Forms


def form(using: str, queue: Any, *fields: str, **changes: Any) -> Any:
    job = queue.rows(using).get()
    made = modelform_factory(queue, fields=fields)
    return made({**{name: getattr(job, name) for name in fields}, **changes}, instance=job)


def test_a_form_says_which_field_can_not_change(using: str) -> None:
    LaneJob.enqueue(using=using)
    fields = ("shop", "number", "status", "priority")
    assert form(using, LaneJob, *fields, priority=7, status="IGNORED").is_valid()
    for wrong, words in (
        ({"number": 5}, "decides in which lane"),
        ({"status": "PROCESSING"}, "only a worker"),
        ({"priority": 2**15}, "priority must lie between"),
    ):
        filled = form(using, LaneJob, *fields, **wrong)
        assert not filled.is_valid()
        assert filled.errors.keys() == wrong.keys()
        assert words in str(filled.errors)


def test_a_form_without_the_field_is_left_alone(using: str) -> None:
    LaneJob.enqueue(using=using)
    filled = form(using, LaneJob, "script", script="new")
    assert filled.is_valid()
    filled.save()
    assert stored(LaneJob, using)["script"] == "new"


def test_a_running_job_stays_as_it_is_in_a_form(using: str) -> None:
    LaneJob.enqueue(using=using)
    assert LaneJob.rows(using).get().claim()
    assert form(using, LaneJob, "status", "script", script="new").is_valid()
    assert set(form(using, LaneJob, "status", status="NEW").errors) == {"status"}


CLEANED: list[tuple[Callable[[str], Any], set[str]]] = [
    (lambda using: LaneJob(shop="a", number=1), set()),
    (lambda using: FifoJob(status="PROCESSING"), {"status"}),
    (lambda using: LaneJob(shop="a", number=2**31), {"number"}),
    (lambda using: LaneJob(shop="a\0", number=1), {"shop"}),
]


@pytest.mark.parametrize(("make", "fields"), CLEANED)
def test_full_clean_of_a_new_job_reports_what_its_insert_would_refuse(
    using: str, make: Callable[[str], Any], fields: set[str]
) -> None:
    job = make(using)
    found: dict[str, Any] = {}
    try:
        job.clean_fields(exclude={"result"})
    except ValidationError as error:
        found = error.message_dict
    assert set(found) == fields


def test_full_clean_reports_the_changes_that_save_would_refuse(using: str) -> None:
    LaneJob.enqueue(using=using)
    job = LaneJob.rows(using).get()
    job.full_clean(exclude={"result"})
    job.shop, job.status = "b", "PROCESSING"
    with pytest.raises(ValidationError) as caught:
        job.full_clean(exclude={"result"})
    assert {"shop", "status"} <= set(caught.value.message_dict)
