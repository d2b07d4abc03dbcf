"""What the job queues promise to their users, name by name: the table of the specification.

Public names only, and compact: the tests of the modules go deeper. The behaviours, by their
numbers, are in integration/test_queue_contract.py. Each test that touches a table runs on every
kind of database, as in a project that has no other.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import signal
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from celery import Celery
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import models, transaction
from django.test import Client
from django.test.utils import isolate_apps
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from parviraptor_celery import exceptions, registry, signals
from parviraptor_celery.models import AbstractJobFactory, BackoffStrategy
from parviraptor_celery.schedule import beat_schedule
from parviraptor_celery.test import (
    JobEntryFactory,
    QueueTestCase,
    make_test_case_for_all_queues,
    run_queue,
    virtual_clock,
)
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob, Note

pytestmark = pytest.mark.usefixtures("one_database")

PROCESS = "parviraptor_celery.process_jobs"
DISPATCH = "parviraptor_celery.dispatch_jobs"
CLEAN = "parviraptor_celery.clean_jobs"
QUEUES = (AtomicJob, FifoJob, FreeJob, LaneJob)
STATUSES = ["NEW", "PROCESSING", "PROCESSED", "SQUASHED", "FAILED", "IGNORED", "DEFERRED"]
RESTING = [status for status in STATUSES if status != "PROCESSING"]
REQUIRED = inspect.Parameter.empty

make_base_class = AbstractJobFactory.make_base_class

Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]

CLASS_ATTRIBUTES: dict[str, Any] = {
    "BACKOFF_STRATEGY": BackoffStrategy.EXPONENTIAL,
    "BACKOFF_STEP_MINUTES": 2,
    "TEMPORARY_FAILURE_THRESHOLD": 19,
    "DEFERRED_RETRY_THRESHOLD": 19,
    "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS": 7,
    "MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN": 30,
    "MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN": 960,
}

INVALID: list[tuple[str, Any]] = [
    ("LEASE_SECONDS", 0),
    ("LEASE_SECONDS", "60"),
    ("DISPATCH_INTERVAL_SECONDS", -1),
    ("MAX_WORKER_DEATHS", 0),
    ("MAX_WORKER_DEATHS", 1.5),
    ("LEASE_SECOND", 60),  # unknown
]


def parameters(function: Any) -> dict[str, Any]:
    """Return names and defaults; those that are given by name only have a star."""
    found = inspect.signature(function).parameters.values()
    stars = {inspect.Parameter.KEYWORD_ONLY: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return {f"{stars.get(one.kind, '')}{one.name}": one.default for one in found}


def statuses(queue: Any) -> list[str]:
    return list(queue.objects.order_by("pk").values_list("status", flat=True))


def only(queue: Any) -> Any:
    """Return the one job that there is."""
    return queue.objects.get()


@contextmanager
def eagerly(app: Celery) -> Iterator[None]:
    app.conf.task_always_eager = True
    try:
        yield
    finally:
        app.conf.task_always_eager = False


def sweep(app: Celery) -> None:
    """Tick as beat does, with workers that do at once what they are told."""
    with eagerly(app):
        app.tasks[DISPATCH].delay(force=True)


# The table, row by row.


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


def test_job_status() -> None:
    assert [status.name for status in FifoJob.Status] == STATUSES
    assert [status.value for status in FifoJob.Status] == STATUSES
    assert all(isinstance(status, str) for status in FifoJob.Status)


def test_the_fields_of_a_job(kicked: Kicked, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def process(job: Any) -> None:
        seen.append(only(FifoJob))
        if job.error_count == 0:
            job.raise_temporary_failure("away")

    monkeypatch.setattr(FifoJob, "process", process)
    new = FifoJob.objects.get(pk=FifoJob.enqueue().pk)
    assert (new.status, new.error_count, new.error_message, new.run_after) == ("NEW", 0, "", None)
    assert (new.attempt, new.lease_until, new.running_lane) == (0, None, None)
    assert abs(new.creation_date - new.modification_date) < timedelta(seconds=5)
    with virtual_clock() as clock:
        run_queue(FifoJob)
        back = only(FifoJob)
        clock.advance(minutes=3)
        run_queue(FifoJob)
    done = only(FifoJob)

    for running, attempt in zip(seen, (1, 2), strict=True):
        assert (running.status, running.attempt) == ("PROCESSING", attempt)
        assert running.running_lane == running.lane == new.lane
        assert running.lease_until > running.modification_date
    assert (back.status, back.error_count, back.error_message) == ("NEW", 1, "away")
    assert (back.running_lane, back.lease_until) == (None, None)
    assert back.run_after > back.modification_date >= new.modification_date
    assert (done.status, done.error_count, done.error_message) == ("PROCESSED", 1, "")
    assert (done.running_lane, done.lease_until, done.attempt) == (None, None, 2)
    assert done.creation_date == new.creation_date
    assert done.modification_date > back.modification_date + timedelta(minutes=2)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("status", RESTING)
def test_rows_may_be_inserted_in_any_resting_status(
    queue: Any, status: str, kicked: Kicked
) -> None:
    queue.objects.create(status=status, script="first")
    queue.objects.bulk_create([queue(status=status, script="second")])
    assert statuses(queue) == [status] * 2
    run_queue(queue)
    runs = status in ("NEW", "DEFERRED")
    assert statuses(queue) == (["PROCESSED"] if runs else [status]) * 2


def test_class_attributes(kicked: Kicked, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh: Any = make_base_class(None)
    assert {name: getattr(fresh, name) for name in CLASS_ATTRIBUTES} == CLASS_ATTRIBUTES
    assert [strategy.name for strategy in BackoffStrategy] == ["EXPONENTIAL", "CONSTANT"]

    monkeypatch.setattr(FifoJob, "BACKOFF_STRATEGY", BackoffStrategy.CONSTANT)
    monkeypatch.setattr(FifoJob, "BACKOFF_STEP_MINUTES", 0.25)
    monkeypatch.setattr(FifoJob, "TEMPORARY_FAILURE_THRESHOLD", 1)
    FifoJob.enqueue(script="temporary")
    with virtual_clock() as clock:
        run_queue(FifoJob)
        pause = only(FifoJob).run_after - only(FifoJob).modification_date
        assert timedelta(seconds=14) < pause < timedelta(seconds=16)
        clock.advance(seconds=16)
        run_queue(FifoJob)
    assert (only(FifoJob).status, only(FifoJob).error_count) == ("FAILED", 2)

    monkeypatch.setattr(LaneJob, "DEFERRED_RETRY_THRESHOLD", 1)
    LaneJob.enqueue(script="defer")
    for _ in range(2):
        run_queue(LaneJob)
    assert (only(LaneJob).status, only(LaneJob).error_count) == ("FAILED", 2)


@pytest.mark.parametrize(
    ("days", "left"), [(7, ["PROCESSED"]), (0.5, []), (None, ["PROCESSED", "PROCESSED"])]
)
def test_max_age_for_processed_jobs(
    celery_in_memory: Celery, monkeypatch: pytest.MonkeyPatch, days: float | None, left: list[str]
) -> None:
    monkeypatch.setattr(FreeJob, "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", days)
    for age in (1, 8):
        moment = timezone.now() - timedelta(days=age)
        FreeJob.objects.create(status="PROCESSED", modification_date=moment, creation_date=moment)
    with eagerly(celery_in_memory):
        celery_in_memory.tasks[CLEAN].delay()
    assert statuses(FreeJob) == left


def test_parviraptor_config(settings: Any, using: str, kicked: Kicked) -> None:
    def leased_for() -> timedelta:
        seen: list[timedelta] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FifoJob, "process", lambda job: seen.append(_lease_of(only(FifoJob))))
            FifoJob.enqueue()
            run_queue(FifoJob)
        FifoJob.objects.all().delete()
        return seen[0]

    assert abs(leased_for() - timedelta(seconds=60)) < timedelta(seconds=5)
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "LEASE_SECONDS": 600}
    assert abs(leased_for() - timedelta(seconds=600)) < timedelta(seconds=5)
    settings.PARVIRAPTOR_CONFIG = {"DISPATCH_INTERVAL_SECONDS": 7}
    assert beat_schedule()[DISPATCH]["schedule"] == 7
    for key, value in INVALID:
        settings.PARVIRAPTOR_CONFIG = {key: value}
        with pytest.raises(SystemCheckError, match=f"PARVIRAPTOR_CONFIG.*{key}"):
            call_command("check", stdout=StringIO())
    settings.PARVIRAPTOR_CONFIG = {
        "LEASE_SECONDS": 60,
        "DISPATCH_INTERVAL_SECONDS": 30,
        "MAX_WORKER_DEATHS": 3,
    }
    call_command("check", stdout=StringIO(), stderr=StringIO())


def _lease_of(job: Any) -> timedelta:
    lease: timedelta = job.lease_until - job.modification_date
    return lease


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    ("raised", "status", "errors"),
    [
        (exceptions.TemporaryJobFailure("said"), "NEW", 1),
        (exceptions.DeferJob("said"), "DEFERRED", 1),
        (exceptions.IgnoreJob("said"), "IGNORED", 0),
        (exceptions.InvalidJobError("said"), "FAILED", 0),
        (exceptions.UnprocessableJob("said"), "NEW", 0),
        (LookupError("said"), "FAILED", 0),
    ],
    ids=repr,
)
def test_exceptions(
    queue: Any,
    raised: Exception,
    status: str,
    errors: int,
    kicked: Kicked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[Any] = []

    def note(job: Any, **_: Any) -> None:
        left.append(only(queue))

    def process(job: Any) -> None:
        if not left:
            raise raised

    monkeypatch.setattr(queue, "process", process)
    queue.enqueue()
    signals.job_finished.connect(note)
    try:
        run_queue(queue)
    finally:
        signals.job_finished.disconnect(note)
    assert (left[0].status, left[0].error_count) == (status, errors)
    if not isinstance(raised, exceptions.UnprocessableJob):
        assert "said" in left[0].error_message


def test_tasks(celery_in_memory: Celery, kicked: Kicked) -> None:
    for name in (PROCESS, DISPATCH, CLEAN):
        assert name in celery_in_memory.tasks
    old = timezone.now() - timedelta(days=8)
    FreeJob.objects.create(status="PROCESSED", modification_date=old)
    FifoJob.enqueue()
    [(task, about)] = kicked()
    celery_in_memory.tasks[task](**about)
    assert statuses(FifoJob) == ["PROCESSED"]
    LaneJob.objects.bulk_create([LaneJob()])
    celery_in_memory.tasks[DISPATCH]()
    assert statuses(LaneJob) == ["NEW"]
    for task, about in kicked():
        celery_in_memory.tasks[task](**about)
    assert statuses(LaneJob) == ["PROCESSED"]
    celery_in_memory.tasks[CLEAN]()
    assert statuses(FreeJob) == []


@pytest.mark.parametrize("using", ["sqlite"], indirect=True)  # the rows are django-celery-beat's
def test_beat_schedule(celery_in_memory: Celery) -> None:
    celery_in_memory.conf.beat_schedule = beat_schedule()
    try:
        scheduler = DatabaseScheduler(app=celery_in_memory, lazy=False)
        entries = {entry.task: entry.schedule for entry in scheduler.schedule.values()}
    finally:
        celery_in_memory.conf.beat_schedule = {}
    assert entries[DISPATCH].run_every == timedelta(seconds=30)
    assert CLEAN in entries
    stored = PeriodicTask.objects.filter(task__startswith="parviraptor_celery.", enabled=True)
    assert stored.count() == 2
    assert {entry["task"] for entry in beat_schedule().values()} <= set(celery_in_memory.tasks)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_queue(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one queue in the foreground until a signal comes, which its second job sends."""
    bodies: list[int] = []

    def process(job: Any) -> None:
        bodies.append(job.pk)
        if len(bodies) == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(FifoJob, "process", process)
    jobs = FifoJob.objects.bulk_create([FifoJob() for _ in range(3)])
    FreeJob.objects.bulk_create([FreeJob()])
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        call_command("process_queue", "testapp", "FifoJob", stdout=StringIO())
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert bodies == [job.pk for job in jobs[:2]]
    assert statuses(FifoJob) == ["PROCESSED", "PROCESSED", "NEW"]
    assert statuses(FreeJob) == ["NEW"]
    with pytest.raises(CommandError, match="FifoJob"):  # it names those that there are
        call_command("process_queue", "testapp", "NoSuchJob", stdout=StringIO())


def test_clean_old_processed_jobs() -> None:
    def clean(*arguments: str) -> None:
        call_command("clean_old_processed_jobs", *arguments, stdout=StringIO())

    old = timezone.now() - timedelta(days=8)
    for queue in (FreeJob, FifoJob):
        for status in RESTING:
            queue.objects.create(status=status, modification_date=old, creation_date=old)
        queue.objects.create(status="PROCESSED", creation_date=old)
    everything = [*RESTING, "PROCESSED"]
    cleaned = [status for status in RESTING if status != "PROCESSED"] + ["PROCESSED"]

    for refused in ([], ["--all-queues", "--queue", "testapp.FreeJob"], ["--queue", "no.Job"]):
        with pytest.raises(CommandError):
            clean(*refused)
    clean("--dry-run", "--all-queues")
    assert statuses(FreeJob) == everything
    clean("--queue", "testapp.FreeJob")
    assert (statuses(FreeJob), statuses(FifoJob)) == (cleaned, everything)
    clean("--all-queues")
    assert statuses(FifoJob) == cleaned


def test_urls_queue_monitoring(
    client: Client, kicked: Kicked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer() -> list[str]:
        response = client.get("/queue-monitoring/")
        assert response.status_code == 200
        return str(response.content.decode()).splitlines()

    assert answer() == ["Alles OK"]
    seen: list[list[str]] = []

    def process(job: Any) -> None:
        for minutes in (29, 2):
            clock.advance(minutes=minutes)
            seen.append(answer())

    monkeypatch.setattr(FifoJob, "process", process)
    FifoJob.objects.create()
    with virtual_clock() as clock:
        run_queue(FifoJob)
        assert seen == [
            ["Alles OK"],
            ["There are 0 failed, 1 long processing and 0 long unprocessed FifoJobs."],
        ]
        assert answer() == ["Alles OK"]
    FreeJob.objects.create(status="FAILED")
    FreeJob.objects.create(status="FAILED")
    for minutes in (959, 961, 962, 963):
        created_at = timezone.now() - timedelta(minutes=minutes)
        FreeJob.objects.create(creation_date=created_at)
        LaneJob.objects.create(creation_date=created_at)
    assert answer() == [
        "There are 2 failed, 0 long processing and 3 long unprocessed FreeJobs.",
        "There are 0 failed, 0 long processing and 3 long unprocessed LaneJobs.",
    ]


def test_urls_open_queue_entries(client: Client, kicked: Kicked) -> None:
    for status in STATUSES:
        if status != "PROCESSING":
            FifoJob.objects.create(status=status)
    FifoJob.objects.create()
    response = client.get("/open-queue-entries/")
    page = response.content.decode()
    assert (response.status_code, page.count("<table")) == (200, 1)
    assert "<style" in page
    rows = {
        cells[0]: cells[1:]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.S)
        if (cells := re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S))
    }
    assert next(iter(rows.values())) == ["NEW", "PROCESSING", "DEFERRED", "FAILED"]
    assert rows["testapp.FifoJob"] == ["2", "0", "1", "1"]
    assert {queue._meta.label for queue in registry.all_queues()} < set(rows)


def test_urls_are_open_by_default_and_closed_by_a_setting(
    client: Client, settings: Any, using: str
) -> None:
    for page in ("/queue-monitoring/", "/open-queue-entries/"):
        assert client.get(page).status_code == 200
        settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "MONITORING_IS_OPEN": False}
        assert client.get(page).status_code == 403
        settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using]}


class Entries(JobEntryFactory):
    def create_fifo_job(self) -> list[FifoJob]:
        return [FifoJob() for _ in range(4)]

    def create_free_job(self) -> None:
        FreeJob.objects.bulk_create([FreeJob() for _ in range(4)])


def outcome_of(case: type[unittest.TestCase]) -> unittest.TestResult:
    """Run a user's test case inside of this test, which has the database ready."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_the_test_api(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process_queue = list(parameters(QueueTestCase.process_queue).items())[1:5]
    assert process_queue == [
        ("JobClass", REQUIRED),
        ("jobs", REQUIRED),
        ("number_of_threads", REQUIRED),
        ("create_jobs", True),
    ]
    assert parameters(make_test_case_for_all_queues) == {
        "factory": None,
        "job_classes_to_ignore": None,
        "**static_fields": REQUIRED,
    }
    covered = (FifoJob, FreeJob)
    ignored = [queue for queue in registry.all_queues() if queue not in covered]
    case: Any = make_test_case_for_all_queues(
        Entries, job_classes_to_ignore=ignored, databases={using}, colour="red"
    )
    assert (sorted(case.queues), case.colour) == (["FifoJob", "FreeJob"], "red")
    result = outcome_of(case)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])

    monkeypatch.setattr(FreeJob, "process", fail)
    broken: Any = make_test_case_for_all_queues(Entries(), ignored, databases={using})
    assert len(outcome_of(broken).failures) == 2
    less: Any = make_test_case_for_all_queues(Entries, {*ignored, FreeJob}, databases={using})
    assert (less.queues, outcome_of(less).wasSuccessful()) == (("FifoJob",), True)
    with pytest.raises(NotImplementedError, match="create_lane_job"):
        Entries().create(LaneJob)


def fail(job: Any) -> None:
    raise LookupError


@pytest.mark.parametrize("number_of_threads", [1, 4])
def test_the_test_api_process_queue(number_of_threads: int) -> None:
    case = QueueTestCase()
    case.process_queue(LaneJob, [LaneJob(number=n % 2) for n in range(6)], number_of_threads)
    assert statuses(LaneJob) == ["PROCESSED"] * 6
    there = LaneJob.objects.bulk_create([LaneJob(), LaneJob()])
    case.process_queue(LaneJob, there, number_of_threads, create_jobs=False)
    assert statuses(LaneJob) == ["PROCESSED"] * 8
    with pytest.raises(AssertionError, match="FAILED"):
        case.process_queue(LaneJob, [LaneJob(script="fail")], number_of_threads)


# What holds for both apps.


def test_rows_wait_for_a_worker_that_knows_their_queue(
    celery_in_memory: Celery, caplog: pytest.LogCaptureFixture, using: str
) -> None:
    FifoJob.objects.bulk_create([FifoJob()])
    for queue, alias in (("testapp.NotYet", using), ("testapp.FifoJob", "elsewhere")):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            celery_in_memory.tasks[PROCESS](queue=queue, using=alias)
        assert (queue if alias == using else alias) in caplog.text
        assert statuses(FifoJob) == ["NEW"]


def test_bad_input_gets_a_clear_error_and_nothing_is_lost(using: str, kicked: Kicked) -> None:
    kept = LaneJob.enqueue()
    wrong: list[tuple[type[Exception], Callable[[], Any]]] = [
        (exceptions.UnknownField, lambda: LaneJob.enqueue(shops="a")),
        (exceptions.InvalidDependentValue, lambda: LaneJob.enqueue(number="many")),
        (exceptions.UnknownDatabase, lambda: LaneJob.enqueue(using="elsewhere")),
        (exceptions.NotANewJob, lambda: LaneJob.enqueue_many([LaneJob(), FifoJob()])),  # type: ignore[list-item]
        (exceptions.LaneChanged, lambda: LaneJob.objects.update(shop="b")),
        (exceptions.IllegalTransition, lambda: LaneJob.objects.get().retry()),
        (exceptions.InvalidDependentField, lambda: make_base_class("shop")),  # type: ignore[arg-type]
    ]
    for error, call in wrong:
        with transaction.atomic(using=using):  # which can go on after each of them
            with pytest.raises(error):
                call()
            assert [job.pk for job in LaneJob.objects.all()] == [kept.pk]
    assert statuses(LaneJob) == ["NEW"]


def test_logs_carry_ids_and_names_and_never_payloads(
    caplog: pytest.LogCaptureFixture, kicked: Kicked
) -> None:
    secret = "payload-4711"
    words = ("", "fail", "invalid", "ignore", "temporary", "unprocessable")
    with caplog.at_level(logging.DEBUG):
        for number, word in enumerate(words):
            LaneJob.enqueue(script=f"{word} {secret}", shop=secret, number=number)
        run_queue(LaneJob)
    assert statuses(LaneJob) == ["PROCESSED", "FAILED", "FAILED", "IGNORED", "NEW", "NEW"]
    own = [one.getMessage() for one in caplog.records if one.name.startswith("parviraptor_celery")]
    for job in LaneJob.objects.all():
        assert any(f"LaneJob {job.pk}" in line for line in own)
    assert [line for line in own if secret in line] == []


@pytest.mark.parametrize("queue", QUEUES)
def test_under_task_always_eager_everything_works_and_nothing_recurses(
    queue: Any, celery_in_memory: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths: list[int] = []

    def process(job: Any) -> None:
        depths.append(len(inspect.stack(0)))
        if len(depths) < 30:
            queue.enqueue()

    monkeypatch.setattr(queue, "process", process)
    with eagerly(celery_in_memory):
        queue.enqueue()
    assert statuses(queue) == ["PROCESSED"] * 30
    assert max(depths) == max(depths[:3])
    monkeypatch.setattr(queue, "process", lambda job: job.raise_temporary_failure("away"))
    with eagerly(celery_in_memory):
        queue.enqueue()
    assert statuses(queue)[30:] == ["NEW"]
    assert not Note.objects.exists()
