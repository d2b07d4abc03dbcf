"""Making a queue, enqueueing, and the methods of a job."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from django.core.checks import run_checks
from django.db import models, transaction
from django.test.utils import isolate_apps
from django.utils import timezone

from parviraptor_celery import exceptions, registry
from parviraptor_celery.test import QueueTestCase, run_queue, virtual_clock
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.parviraptor.contract.common import (
    DISPATCH,
    PROCESS,
    QUEUES,
    REQUIRED,
    STATUSES,
    Kicked,
    eagerly,
    make_base_class,
    only,
    parameters,
    statuses,
)

pytestmark = pytest.mark.usefixtures("one_database")


def sweep(app: Celery) -> None:
    """Tick as beat does, with workers that do at once what they are told."""
    with eagerly(app):
        app.tasks[DISPATCH].delay(force=True)


def test_make_base_class(kicked: Kicked) -> None:
    assert parameters(make_base_class) == {"dependent_fields": REQUIRED}
    for dependent_fields in (None, [], ["shop", "product"]):
        base = make_base_class(dependent_fields)
        assert issubclass(base, models.Model)
        assert base._meta.abstract
        assert base.dependent_fields == dependent_fields

    LaneJob.enqueue_many([LaneJob(shop=shop, number=number) for shop in "aab" for number in (1, 2)])
    FifoJob.enqueue_many([FifoJob(), FifoJob()])
    FreeJob.enqueue_many([FreeJob(), FreeJob()])
    groups: dict[Any, set[Any]] = {}
    for job in LaneJob.objects.all():
        groups.setdefault(job.lane, set()).add((job.shop, job.number))
    assert sorted(map(sorted, groups.values())) == [[("a", 1)], [("a", 2)], [("b", 1)], [("b", 2)]]
    assert len(set(FifoJob.objects.values_list("lane", flat=True)) - {None}) == 1
    assert set(FreeJob.objects.values_list("lane", flat=True)) == {None}


@pytest.mark.parametrize("queue", QUEUES)
def test_enqueue_writes_in_the_callers_transaction_and_kicks_on_commit(
    queue: Any, using: str, kicked: Kicked
) -> None:
    assert parameters(queue.enqueue) == {
        "*using": None,
        "*run_after": None,
        "*priority": 0,
        "*unique_key": None,
        "**fields": REQUIRED,
    }
    with transaction.atomic(using=using):
        job = queue.enqueue(script="x")
        assert (type(job), job.pk, only(queue).script) == (queue, only(queue).pk, "x")
        transaction.set_rollback(True, using=using)
    assert (statuses(queue), kicked()) == ([], [])
    with transaction.atomic(using=using):
        queue.enqueue(using=using)
        assert kicked() == []
    assert statuses(queue) == ["NEW"]
    assert [task for task, _ in kicked()] == [PROCESS]


def test_enqueue_with_its_options(using: str, celery_in_memory: Celery, kicked: Kicked) -> None:
    in_an_hour = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    later = FreeJob.enqueue(run_after=in_an_hour)
    soon = FreeJob.enqueue(run_after=timedelta(minutes=5))
    low, high = FreeJob.enqueue(), FreeJob.enqueue(priority=5, unique_key="export 7")
    with pytest.raises(exceptions.DuplicateUniqueKey), transaction.atomic(using=using):
        FreeJob.enqueue(unique_key="export 7")
    for wrong in ({"run_after": "soon"}, {"run_after": datetime(2026, 1, 1)}, {"priority": 1.5}):
        with pytest.raises(exceptions.InvalidJobOption):
            FreeJob.enqueue(**wrong)
    with pytest.raises(exceptions.UnknownField, match="colour"):
        FreeJob.enqueue(colour="red")
    assert FreeJob.objects.get(pk=later.pk).run_after == in_an_hour
    assert FreeJob.objects.count() == 4

    begun = [body.pk for body in bodies_of(FreeJob)]
    assert begun == [high.pk, low.pk]
    FreeJob.enqueue(unique_key="export 7")  # the first one no longer waits
    with virtual_clock() as clock:
        for minutes, job in ((6, soon), (60, later)):
            clock.advance(minutes=minutes)
            assert job.pk in [body.pk for body in bodies_of(FreeJob)]


def bodies_of(queue: Any) -> list[Any]:
    """Work the queue off; return its bodies, in order, whatever still waits in the end."""
    return QueueTestCase().process_queue(queue, [], 1, ends=set(STATUSES))


@pytest.mark.parametrize("queue", QUEUES)
def test_enqueue_many(queue: Any, using: str, kicked: Kicked) -> None:
    assert parameters(queue.enqueue_many) == {"jobs": REQUIRED, "*using": None}
    with transaction.atomic(using=using):
        queue.enqueue_many([queue(), queue()])
        transaction.set_rollback(True, using=using)
    assert (statuses(queue), kicked()) == ([], [])
    with transaction.atomic(using=using):
        jobs = queue.enqueue_many((queue() for _ in range(3)), using=using)
        assert kicked() == []
    assert [job.pk for job in jobs] == list(queue.objects.order_by("pk").values_list("pk", flat=1))
    assert {task for task, _ in kicked()} == {PROCESS}


@pytest.mark.parametrize("queue", QUEUES)
def test_objects_create_and_bulk_create_work_too(
    queue: Any, celery_in_memory: Celery, kicked: Kicked
) -> None:
    queue.objects.create()
    queue.objects.bulk_create([queue(), queue()])
    kicked()  # and nobody hears of them
    assert statuses(queue) == ["NEW"] * 3
    sweep(celery_in_memory)
    assert statuses(queue) == ["PROCESSED"] * 3


@pytest.mark.parametrize("name", ["using", "run_after", "priority", "unique_key"])
def test_options_that_clash_with_a_users_own_field_are_refused_by_a_check(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with isolate_apps("tests.testapp") as apps:
        monkeypatch.setattr(registry, "apps", apps)
        base: Any = make_base_class(None)
        meta = type("Meta", (base.Meta,), {"app_label": "testapp"})
        body = {"process": lambda self: None, "__module__": __name__, "Meta": meta}
        type("Clashing", (base,), {**body, name: models.IntegerField(null=True)})
        found = [message.id for message in run_checks(tags=["parviraptor_celery"])]
    assert found == ["parviraptor_celery.E006"]


@pytest.mark.parametrize("queue", QUEUES)
def test_process_saves_the_fields_that_it_sets_with_the_outcome(queue: Any, kicked: Kicked) -> None:
    for script in ("", "ignore", "temporary", "invalid"):
        queue.objects.all().delete()
        queue.enqueue(script=script)
        run_queue(queue)
        assert only(queue).result == 1, only(queue).status


def test_the_methods_of_a_job(kicked: Kicked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parameters(FifoJob.process) == {"self": REQUIRED}
    assert parameters(FifoJob.raise_temporary_failure) == {"self": REQUIRED, "message": REQUIRED}
    plain = FifoJob()
    assert plain.is_processable() is True
    assert plain.on_job_terminated() is None  # type: ignore[func-returns-value]
    with pytest.raises(exceptions.TemporaryJobFailure, match="away"):
        plain.raise_temporary_failure("away")

    calls: list[int] = []

    def process(job: Any) -> None:
        calls.append(job.attempt)
        if len(calls) == 1:
            job.update_job_for_being_resumed()

    monkeypatch.setattr(FifoJob, "process", process)
    FifoJob.enqueue()
    run_queue(FifoJob)
    assert (calls, only(FifoJob).status, only(FifoJob).error_count) == ([1, 2], "PROCESSED", 0)
