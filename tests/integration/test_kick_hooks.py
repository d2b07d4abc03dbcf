"""Kicks of a transaction that enqueues many jobs one by one, and of jobs that are due later."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parviraptor_celery import kicks
from tests.testapp.models import FreeJob, HoldJob, LaneJob

Kicks = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def kicked(monkeypatch: pytest.MonkeyPatch) -> Kicks:
    """Collect what would be sent to the broker: names of tasks, arguments."""
    sent: Kicks = []
    monkeypatch.setattr(
        "parviraptor_celery.broker.kick", lambda task, **about: sent.append((task, about)) or True
    )
    return sent


def questions_after_the_commit(using: str, queue: Any, jobs: list[dict[str, Any]]) -> int:
    """Enqueue `jobs` one by one in a transaction; return the number of queries after it."""
    with CaptureQueriesContext(connections[using]) as queries:
        with transaction.atomic(using=using):
            for fields in jobs:
                queue.enqueue(using=using, **fields)
            before = len(queries)
        asked = [query["sql"] for query in queries.captured_queries[before:]]
    return len([sql for sql in asked if sql.lstrip().upper().startswith("SELECT")])


def test_many_independent_jobs_one_by_one_cost_one_question_and_few_kicks(
    using: str, kicked: Kicks
) -> None:
    assert questions_after_the_commit(using, FreeJob, [{}] * 200) <= 2
    assert [task for task, _ in kicked] == [kicks.PROCESS] * kicks.BACKLOG


def test_many_lanes_one_by_one_cost_no_question_and_share_their_messages(
    using: str, kicked: Kicks
) -> None:
    jobs = [{"number": number} for number in range(200)]
    assert questions_after_the_commit(using, LaneJob, jobs) == 0
    assert len(kicked) == kicks.MOST_MESSAGES
    lanes = {lane for _, about in kicked for lane in about["lanes"]}
    assert lanes == set(LaneJob.rows(using).values_list("lane", flat=True))


def test_many_jobs_of_one_lane_cost_one_question_and_one_kick(using: str, kicked: Kicks) -> None:
    assert questions_after_the_commit(using, LaneJob, [{}] * 200) == 1
    assert len(kicked) == 1


def test_jobs_of_a_lost_savepoint_do_not_take_the_kicks_of_the_others_along(
    using: str, kicked: Kicks
) -> None:
    with transaction.atomic(using=using):
        first = LaneJob.enqueue(using=using, number=30)
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=using):
            for number in range(30):
                FreeJob.enqueue(using=using)
                LaneJob.enqueue(using=using, number=number)
            raise ZeroDivisionError
        FreeJob.enqueue(using=using)
        kept = LaneJob.enqueue(using=using, number=29)
    lanes = [about["lanes"] for _, about in kicked if "lanes" in about]
    assert sorted(lanes) == sorted([[first.lane], [kept.lane]])
    assert len(kicked) == 3  # and one for the independent job


@pytest.mark.django_db
def test_the_hooks_of_a_test_case_kick_each_time(
    kicked: Kicks, django_capture_on_commit_callbacks: Any
) -> None:
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            LaneJob.enqueue().claim()
        LaneJob.rows("default").all().delete()
    assert kicked == []  # claimed, so somebody is on the way
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            LaneJob.enqueue()
        LaneJob.rows("default").all().delete()
    assert len(kicked) == 2


@pytest.mark.parametrize("queue", [FreeJob, LaneJob])
@pytest.mark.parametrize("way", ["enqueue", "enqueue_many", "create"])
def test_a_job_that_is_due_later_is_kicked_then(
    using: str, kicked: Kicks, queue: Any, way: str
) -> None:
    for pause, expected in [(-60, None), (300, 300), (599, 599), (3600, ...)]:
        due = timezone.now() + timedelta(seconds=pause)
        match way:
            case "enqueue":
                queue.enqueue(using=using, run_after=due)
            case "enqueue_many":
                queue.enqueue_many([queue(run_after=due)], using=using)
            case _:
                queue.objects.using(using).create(run_after=due)
        countdowns = [about.get("countdown") for _, about in kicked]
        assert countdowns == ([] if expected is ... else pytest.approx([expected], abs=20)) or (
            countdowns == [expected]
        )
        assert queue.rows(using).get().run_after is not None
        queue.rows(using).all().delete()
        kicked.clear()


def test_of_many_some_due_and_some_later_the_due_ones_are_kicked_now(
    using: str, kicked: Kicks
) -> None:
    hour, minute = timedelta(hours=1), timedelta(minutes=1)
    now = timezone.now()
    jobs = [LaneJob(number=number) for number in range(3)]
    jobs += [LaneJob(number=9, run_after=now + minute), LaneJob(number=8, run_after=now + hour)]
    LaneJob.enqueue_many(jobs, using=using)
    at_once = [about for _, about in kicked if "countdown" not in about]
    later = [about for _, about in kicked if "countdown" in about]
    assert sum(len(about["lanes"]) for about in at_once) == 3
    assert [about["lanes"] for about in later] == [[jobs[3].lane]]


def test_more_due_times_than_a_few_are_left_to_the_sweep(using: str, kicked: Kicks) -> None:
    now = timezone.now()
    due = [now + timedelta(seconds=10 * number) for number in range(2, 40)]
    FreeJob.enqueue_many([FreeJob(run_after=moment) for moment in due], using=using)
    countdowns = [about["countdown"] for _, about in kicked]
    assert len(countdowns) == kicks.BACKLOG
    assert countdowns == sorted(countdowns)
    assert countdowns[0] <= 20


@pytest.mark.parametrize("verb", ["ignore", "retry", "cancel"])
def test_a_decision_after_an_enqueue_in_one_transaction_still_wakes_its_lane(
    using: str, kicked: Kicks, verb: str
) -> None:
    later = timezone.now() + timedelta(hours=1)
    holder = {"run_after": later} if verb == "cancel" else {"status": "FAILED"}
    HoldJob.rows(using).bulk_create([HoldJob(**holder), HoldJob()])
    first, _ = HoldJob.rows(using).order_by("id")
    with transaction.atomic(using=using):
        HoldJob.enqueue(using=using)  # behind one that waits, so it needs no kick by itself
        getattr(first, verb)()
    assert [about["lanes"] for _, about in kicked] == [[first.lane]]
