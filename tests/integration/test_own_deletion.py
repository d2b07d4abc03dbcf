"""Bodies of an atomic queue that delete their own job: as elsewhere, what they did stays done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, transaction

from parviraptor_celery import broker, execution, own_deletion, signals
from parviraptor_celery.exceptions import DeferJob
from tests.integration.working_off import enqueue, statuses, work_off
from tests.testapp.models import AtomicJob, Note
from tests.unit.jobs import received


def delete_itself(job: Any) -> None:
    job.delete()


def delete_its_row(job: Any) -> None:
    AtomicJob.objects.using(job.alias).filter(pk=job.pk).delete()


each_way = pytest.mark.parametrize("delete", [delete_itself, delete_its_row])


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr(broker, "kick", lambda *_, **__: True)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], list[int]]:
    """Let the jobs with a script have a body of the test's; returns the ids of those that ran."""

    def replace(body: Callable[[Any], None]) -> list[int]:
        ids: list[int] = []

        def process(self: Any) -> None:
            ids.append(self.pk)
            if self.script:
                body(self)
            Note.objects.using(self.alias).create(text="kept")

        monkeypatch.setattr(AtomicJob, "process", process)
        return ids

    return replace


@each_way
def test_its_effects_stay_and_its_lane_goes_on(
    using: str, delete: Callable[[Any], None], ran: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ids = ran(delete)
    jobs = enqueue(AtomicJob, using, ["delete", "delete", ""])
    with received(signals.lease_lost) as lost:
        work_off(AtomicJob, using)
    assert ids == [job.pk for job in jobs]
    assert statuses(AtomicJob, using) == ["PROCESSED"]
    assert Note.objects.using(using).count() == 3
    assert (lost, caplog.records) == ([], [])


@each_way
def test_nothing_stays_if_another_worker_had_taken_the_job_and_deleted_it(
    using: str, delete: Callable[[Any], None], ran: Any
) -> None:
    ran(delete)
    enqueue(AtomicJob, using, ["delete"])
    job = AtomicJob.rows(using).get()
    assert job.claim()
    AtomicJob.rows(using).update(attempt=7)
    AtomicJob.rows(using).all().delete()
    assert not execution.run(job).is_recorded
    assert not Note.objects.using(using).exists()


@each_way
def test_the_job_is_back_if_its_body_chose_another_outcome(
    using: str, delete: Callable[[Any], None], ran: Any
) -> None:
    def body(job: Any) -> None:
        delete(job)
        raise DeferJob("not yet")

    ran(body)
    (job,) = enqueue(AtomicJob, using, ["delete"])
    AtomicJob.rows(using).update(error_count=AtomicJob.DEFERRED_RETRY_THRESHOLD)
    work_off(AtomicJob, using)
    row = AtomicJob.rows(using).get(pk=job.pk)
    assert (row.status, row.worker_deaths) == ("FAILED", 0)


def test_a_body_that_starts_again_has_its_job(using: str, ran: Any) -> None:
    def body(job: Any) -> None:
        job.delete()
        if len(ids) == 1:
            raise OperationalError("database is locked")

    ids = ran(body)
    (job,) = enqueue(AtomicJob, using, ["delete"])
    work_off(AtomicJob, using)
    assert ids == [job.pk, job.pk]
    assert statuses(AtomicJob, using) == []
    assert Note.objects.using(using).count() == 1


def test_if_nobody_else_can_be_asked_all_is_undone(
    using: str, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_away(_: Any) -> bool:
        raise OperationalError("too many connections")

    monkeypatch.setattr(own_deletion, "_answer_elsewhere", is_away)
    ran(delete_itself)
    enqueue(AtomicJob, using, ["delete"])
    work_off(AtomicJob, using)
    assert statuses(AtomicJob, using) == ["PROCESSING"]
    assert not Note.objects.using(using).exists()


def test_in_the_transaction_of_a_test_nobody_else_is_asked(using: str, ran: Any) -> None:
    ran(delete_itself)
    with transaction.atomic(using=using):
        enqueue(AtomicJob, using, ["delete"])
        work_off(AtomicJob, using)
    assert statuses(AtomicJob, using) == []
    assert Note.objects.using(using).count() == 1
