"""What a failed job means for those behind it, by the policy of its queue."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from parviraptor_celery import sweep, tasks
from parviraptor_celery.dispatch import FAIL_CHUNK, JobLaneFeed, run_lanes
from parviraptor_celery.drains import Budget
from tests.testapp.models import FifoJob, GoOnJob, HoldJob, LaneJob

Kicks = list[dict[str, Any]]
DECISIONS = pytest.mark.parametrize("decision", ["retry", "ignore", "delete"])


@pytest.fixture(autouse=True)
def kicked(monkeypatch: pytest.MonkeyPatch) -> Kicks:
    """Collect what workers would be told; these tests are the workers."""
    sent: Kicks = []
    monkeypatch.setattr(
        "parviraptor_celery.broker.kick", lambda _, **about: sent.append(about) or True
    )
    return sent


def work_off(queue: Any, using: str) -> int:
    lanes = sorted(set(queue.rows(using).values_list("lane", flat=True)))
    return run_lanes(queue, using, lanes, Budget.endless()).rows


def statuses(queue: Any, using: str, **which: Any) -> list[str]:
    return list(queue.rows(using).filter(**which).order_by("id").values_list("status", flat=True))


def decide(job: Any, decision: str) -> None:
    type(job).rows(job.alias).filter(pk=job.pk).update(script="")
    job.refresh_from_db()
    getattr(job, decision)()


# HOLD_LANE


def held_lane(using: str) -> Any:
    """Return a failed job with two behind it, and one in another lane."""
    cause = HoldJob.enqueue(using=using, script="fail")
    HoldJob.enqueue_many([HoldJob(), HoldJob(), HoldJob(shop="b")], using=using)
    work_off(HoldJob, using)
    return cause


def test_under_hold_lane_those_behind_a_failed_job_wait_and_newcomers_too(using: str) -> None:
    held_lane(using)
    HoldJob.enqueue(using=using)

    assert work_off(HoldJob, using) == 0
    assert statuses(HoldJob, using) == ["FAILED", "NEW", "NEW", "PROCESSED", "NEW"]


@DECISIONS
def test_under_hold_lane_they_run_in_order_once_a_person_has_decided(
    using: str, decision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause, ran = held_lane(using), list[int]()
    monkeypatch.setattr(HoldJob, "process", lambda self: ran.append(self.pk))
    decide(cause, decision)

    work_off(HoldJob, using)
    assert set(statuses(HoldJob, using)) <= {"PROCESSED", "IGNORED"}
    assert ran == sorted(ran)
    assert len(ran) == (3 if decision == "retry" else 2)


def test_under_hold_lane_the_sweep_does_not_kick_what_is_held(using: str, kicked: Kicks) -> None:
    cause = held_lane(using)
    other = HoldJob.enqueue(using=using, shop="c")
    kicked.clear()

    sweep.kick_lanes(HoldJob, using, "")
    assert [about["lanes"] for about in kicked] == [[other.lane]]

    HoldJob.rows(using).filter(pk=cause.pk).delete()
    kicked.clear()
    sweep.kick_lanes(HoldJob, using, "")
    lanes = {lane for about in kicked for lane in about["lanes"]}
    assert lanes == {other.lane, cause.lane}, "a deleted cause lets its lane go on"


def test_under_hold_lane_what_waits_before_the_failed_job_runs(using: str) -> None:
    HoldJob.enqueue_many([HoldJob(), HoldJob(), HoldJob()], using=using)
    deferred, _, cause = HoldJob.rows(using).order_by("id")
    HoldJob.rows(using).filter(pk=deferred.pk).update(status="DEFERRED")
    HoldJob.rows(using).filter(pk=cause.pk).update(status="FAILED")
    HoldJob.enqueue(using=using)

    heads = dict(HoldJob.rows(using).lane_heads("DEFERRED", "", 9))
    assert HoldJob.rows(using).startable(heads) == [cause.lane]
    work_off(HoldJob, using)
    assert statuses(HoldJob, using) == ["PROCESSED", "PROCESSED", "FAILED", "NEW"]


def test_which_lanes_are_held_is_looked_up_in_the_index(using: str) -> None:
    HoldJob.rows(using).bulk_create(
        [HoldJob(shop=str(n), status=s) for n in range(1500) for s in ("FAILED", "NEW")]
    )
    _analyze(HoldJob, using)
    heads = dict(HoldJob.rows(using).lane_heads("NEW", "", 400))
    assert HoldJob.rows(using).startable(heads) == []
    plan = str(HoldJob.rows(using).not_held(list(heads.values())).explain())
    assert "_sti" in plan, plan
    assert "Hash" not in plan, plan


def _analyze(queue: Any, using: str) -> None:
    with connections[using].cursor() as cursor:
        word = "ANALYZE TABLE" if connections[using].vendor == "mysql" else "ANALYZE"
        cursor.execute(f"{word} {queue._meta.db_table}")
        if connections[using].vendor != "postgresql":
            cursor.fetchall()


# GO_ON


def test_under_go_on_a_failed_job_holds_nobody(using: str) -> None:
    GoOnJob.enqueue_many([GoOnJob(script="fail x"), GoOnJob(), GoOnJob()], using=using)
    assert work_off(GoOnJob, using) == 3
    assert statuses(GoOnJob, using) == ["FAILED", "PROCESSED", "PROCESSED"]
    row = GoOnJob.rows(using).order_by("id")[0]
    assert (row.error_message, "ValueError" in row.error_traceback) == ("x", True)


def test_under_go_on_the_successor_is_claimed_together_with_the_failure(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    GoOnJob.enqueue_many([GoOnJob(script="fail x"), GoOnJob()], using=using)
    lane = GoOnJob.rows(using).values_list("lane", flat=True)[0]
    feed, looks = JobLaneFeed(GoOnJob.rows(using), lane), list[int]()
    run = feed.run(feed.first())
    monkeypatch.setattr(feed, "first", lambda: looks.append(1))

    successor = feed.settle(run, claim_next=True)
    assert successor is not None
    assert statuses(GoOnJob, using) == ["FAILED", "PROCESSING"]
    assert looks == []


# FAIL_DEPENDENTS, by turns


def many_dependents(using: str, count: int) -> Any:
    cause = LaneJob.enqueue(using=using, shop="a", script="fail")
    LaneJob.rows(using).bulk_create([LaneJob(shop="a") for _ in range(count)])
    return cause


def test_a_lane_with_many_dependents_makes_room_after_each_chunk(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parviraptor_celery.dispatch.FAIL_CHUNK", 10)
    cause = many_dependents(using, 35)
    other = LaneJob.enqueue(using=using, shop="b")
    seen: list[int] = []
    monkeypatch.setattr(
        LaneJob, "process", lambda self: seen.append(_failed(using)) or (self.script and 1 / 0)
    )

    report = run_lanes(LaneJob, using, [cause.lane, other.lane], Budget.endless())

    assert seen == [0, 11], "the cause itself, and one chunk of its dependents"
    assert (report.left_over, report.rows) == ([], 2)
    assert _failed(using) == 36


def test_the_budget_counts_the_turns_and_what_is_left_over_is_named(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parviraptor_celery.dispatch.FAIL_CHUNK", 10)
    cause = many_dependents(using, 35)
    report = run_lanes(LaneJob, using, [cause.lane], Budget(rows=3, seconds=60))

    assert (report.rows, report.left_over) == (1, [cause.lane])
    assert _failed(using) == 1 + 20, "the body, and two chunks"


def test_a_task_whose_budget_is_spent_kicks_the_rest_of_the_dependents(
    using: str, monkeypatch: pytest.MonkeyPatch, kicked: Kicks, settings: Any
) -> None:
    monkeypatch.setattr("parviraptor_celery.dispatch.FAIL_CHUNK", 10)
    settings.PARVIRAPTOR_CONFIG = {"KICK_JOBS": 2}
    cause = many_dependents(using, 35)
    kicked.clear()
    tasks.process_jobs(queue="testapp.LaneJob", using=using, lanes=[cause.lane])
    assert [about["lanes"] for about in kicked] == [[cause.lane]]


def _failed(using: str) -> int:
    return LaneJob.rows(using).filter(status="FAILED").count()


def test_a_chunk_is_what_one_statement_takes() -> None:
    assert FAIL_CHUNK == 500


# Retry


def test_retrying_brings_back_exactly_the_dependents_in_order(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [LaneJob(shop="a", script="fail")] + [LaneJob(shop="a") for _ in range(3)]
    LaneJob.enqueue_many([*jobs, LaneJob(shop="b", script="fail"), LaneJob(shop="b")], using=using)
    for status in ("PROCESSED", "SQUASHED", "IGNORED"):
        LaneJob.rows(using).bulk_create([LaneJob(shop="a", status=status, script="final")])
    work_off(LaneJob, using)
    cause = LaneJob.rows(using).order_by("id")[0]
    assert set(statuses(LaneJob, using, shop="a", script="")) == {"FAILED"}

    ran: list[int] = []
    monkeypatch.setattr(LaneJob, "process", lambda self: ran.append(self.pk))
    assert cause.retry() == 4
    assert statuses(LaneJob, using, shop="b") == ["FAILED", "FAILED"]
    work_off(LaneJob, using)
    assert ran == sorted(ran)
    assert len(ran) == 4
    assert statuses(LaneJob, using, script="final") == ["PROCESSED", "SQUASHED", "IGNORED"]


def test_newcomers_of_a_failed_lane_name_the_first_cause_and_come_back_with_it(using: str) -> None:
    cause = FifoJob.enqueue(using=using, script="fail")
    FifoJob.enqueue(using=using)
    work_off(FifoJob, using)
    FifoJob.enqueue(using=using)  # behind a dependent
    work_off(FifoJob, using)

    causes = FifoJob.rows(using).order_by("id").values_list("failed_by", flat=True)
    assert list(causes) == [None, cause.pk, cause.pk]
    cause.refresh_from_db()
    assert cause.retry() == 3


def test_after_ignoring_the_cause_newcomers_run_and_each_dependent_may_be_retried(
    using: str,
) -> None:
    FifoJob.enqueue_many([FifoJob(script="fail"), FifoJob(), FifoJob()], using=using)
    work_off(FifoJob, using)
    cause, first, second = FifoJob.rows(using).order_by("id")
    cause.ignore()
    FifoJob.enqueue(using=using)
    work_off(FifoJob, using)
    assert statuses(FifoJob, using) == ["IGNORED", "FAILED", "FAILED", "PROCESSED"]

    assert second.retry() == 1
    work_off(FifoJob, using)
    assert statuses(FifoJob, using) == ["IGNORED", "FAILED", "PROCESSED", "PROCESSED"]
    assert first.retry() == 1
