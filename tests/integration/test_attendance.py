"""Whether a new job needs a kick: what its INSERT tells, and what is asked after the commit."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections, models, transaction
from django.db.models.functions import Upper
from django.utils import timezone

from parviraptor_celery import attendance, kicks, statements
from parviraptor_celery.states import JobStatus
from tests.testapp.models import FreeJob, LaneJob

Kicks = list[dict[str, Any]]
ON_POSTGRESQL = pytest.mark.parametrize("using", ["postgresql"], indirect=True)
"""The others can't tell more than the key."""


@pytest.fixture(autouse=True)
def kicked(monkeypatch: pytest.MonkeyPatch) -> Kicks:
    sent: Kicks = []
    monkeypatch.setattr(
        "parviraptor_celery.broker.kick", lambda _, **about: sent.append(about) or True
    )
    return sent


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the INSERTs told beside the key."""
    told: list[tuple[Any, ...]] = []
    insert = statements.insert_saved

    def noting(*args: Any) -> Any:
        found = insert(*args)
        told.append(found[1:] if found else ())
        return found

    monkeypatch.setattr(statements, "insert_saved", noting)
    return told


@ON_POSTGRESQL
def test_the_first_of_a_lane_is_unattended(using: str, answers: list[Any], kicked: Kicks) -> None:
    LaneJob.enqueue(using=using, shop="elsewhere")
    job = LaneJob.enqueue(using=using, shop="here")
    assert answers == [(True,), (True,)]
    assert [kick["lanes"] for kick in kicked][1:] == [[job.lane]]


@ON_POSTGRESQL
@pytest.mark.parametrize("earlier", [JobStatus.NEW, JobStatus.PROCESSING])
def test_behind_one_that_waits_or_runs_a_job_is_attended(
    using: str, answers: list[Any], kicked: Kicks, earlier: str
) -> None:
    first = LaneJob.enqueue(using=using)
    if earlier == JobStatus.PROCESSING:
        assert LaneJob.rows(using).candidate(first.lane, JobStatus.NEW).claim()
    LaneJob.enqueue(using=using)
    assert answers == [(True,), (False,)]
    assert len(kicked) == 1


@ON_POSTGRESQL
def test_whoever_had_their_last_look_before_the_commit_does_not_count(
    using: str, kicked: Kicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The INSERT saw the lane running; before its commit the runner looked, and left."""
    first = LaneJob.enqueue(using=using)
    runs = LaneJob.rows(using).candidate(first.lane, JobStatus.NEW)
    assert runs.claim()
    insert = statements.insert_saved

    def inserted_late(*args: Any) -> Any:
        assert runs.rest(JobStatus.PROCESSED)
        assert LaneJob.rows(using).candidate(first.lane, JobStatus.NEW) is None
        key, _ = insert(*args)
        return key, False

    monkeypatch.setattr(statements, "insert_saved", inserted_late)
    LaneJob.enqueue(using=using)
    assert [kick["lanes"] for kick in kicked] == [[first.lane]] * 2


@ON_POSTGRESQL
def test_an_independent_job_is_unattended_while_few_wait(
    using: str, answers: list[Any], kicked: Kicks
) -> None:
    for _ in range(attendance.BACKLOG + 2):
        FreeJob.enqueue(using=using)
    assert answers == [(True,)] * attendance.BACKLOG + [(False,)] * 2
    assert len(kicked) == attendance.BACKLOG


def test_an_urgent_one_behind_a_backlog_is_found_by_the_look_after_the_commit(
    using: str, kicked: Kicks
) -> None:
    FreeJob.enqueue_many([FreeJob() for _ in range(kicks.BACKLOG)], using=using)
    del kicked[:]
    FreeJob.enqueue(using=using, priority=1)
    assert len(kicked) == 1


@ON_POSTGRESQL
def test_in_a_transaction_nothing_is_asked_by_the_insert(using: str, answers: list[Any]) -> None:
    with transaction.atomic(using=using):
        LaneJob.enqueue(using=using)
        FreeJob.enqueue(using=using)
    assert answers == [(), ()]


@ON_POSTGRESQL
def test_a_job_that_is_due_later_is_asked_for_by_nobody(using: str, answers: list[Any]) -> None:
    LaneJob.enqueue(using=using, run_after=timezone.now())
    assert answers == [()]


@ON_POSTGRESQL
def test_what_was_known_once_is_not_believed_of_a_later_save(using: str, kicked: Kicks) -> None:
    job = LaneJob.enqueue(using=using)
    LaneJob.enqueue(using=using)
    job.pk, job._state.adding = None, True  # Django's way of making a copy
    job.error_message = Upper(models.Value("left to Django"))
    with transaction.atomic(using=using):
        job.save()
    assert len(kicked) == 1


def test_every_value_is_stored_as_django_does(using: str) -> None:
    """A job saved by an INSERT that is kept, and one by Django's own."""
    ours = LaneJob.enqueue(using=using, shop="Schröder & Söhne", number=7, priority=-3)
    theirs = LaneJob(shop="Schröder & Söhne", number=7, priority=-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "insert_saved", lambda *_: None)
        theirs.save(using=using)
    assert ours.pk != theirs.pk
    moments = {"id", "creation_date", "modification_date"}
    fields = [field.attname for field in LaneJob._meta.concrete_fields]
    first, second = LaneJob.rows(using).filter(pk__in=[ours.pk, theirs.pk]).values_list(*fields)
    differing = {n for n, a, b in zip(fields, first, second, strict=True) if a != b}
    assert differing <= moments


def test_an_expression_is_left_to_django(using: str) -> None:
    upper = LaneJob(shop="b", error_message=Upper(models.Value("later")))
    upper.save(using=using)
    assert LaneJob.rows(using).get(pk=upper.pk).error_message == "LATER"


def test_a_key_that_is_given_is_kept(using: str) -> None:
    job = LaneJob(pk=77, shop="a")
    job.save(using=using, force_insert=True)
    assert LaneJob.rows(using).get(shop="a").pk == 77


def test_an_insert_in_a_broken_transaction_rolls_back_as_djangos_does(using: str) -> None:
    LaneJob(pk=77, shop="a").save(using=using, force_insert=True)
    with transaction.atomic(using=using):
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            LaneJob(pk=77, shop="b").save(using=using, force_insert=True)
        assert connections[using].needs_rollback
        transaction.set_rollback(True, using=using)
