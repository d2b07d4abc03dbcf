"""Tasks, schedule, commands, pages and the test API."""

from __future__ import annotations

import os
import re
import signal
import unittest
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from celery import Celery
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from parviraptor_celery import registry
from parviraptor_celery.schedule import beat_schedule
from parviraptor_celery.test import (
    JobEntryFactory,
    QueueTestCase,
    make_test_case_for_all_queues,
    run_queue,
    virtual_clock,
)
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.parviraptor.contract.common import (
    CLEAN,
    DISPATCH,
    PROCESS,
    REQUIRED,
    RESTING,
    STATUSES,
    Kicked,
    fail,
    parameters,
    statuses,
)

pytestmark = pytest.mark.usefixtures("one_database")


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
    assert (less.queues, outcome_of(less).wasSuccessful()) == (["FifoJob"], True)
    with pytest.raises(NotImplementedError, match="create_lane_job"):
        Entries().create(LaneJob)


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
