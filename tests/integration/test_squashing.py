"""Queues that fold what waits in a lane into the newest: when, what, and what never."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from parviraptor_celery import signals, squashing
from parviraptor_celery.dispatch import JobLaneFeed, run_lanes
from parviraptor_celery.drains import Budget
from parviraptor_celery.states import FailurePolicy
from tests.integration.test_lane_races import in_a_thread, let_them_meet
from tests.integration.threads import open_transaction
from tests.testapp.models import SquashJob
from tests.unit.jobs import received

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The ids of the jobs that ran, in order."""
    order: list[int] = []
    process = SquashJob.process

    def noting(self: Any) -> None:
        order.append(self.pk)
        process(self)

    with monkeypatch.context() as patch:
        patch.setattr(SquashJob, "process", noting)
        yield order


def lane(using: str, *columns: dict[str, Any]) -> list[Any]:
    """Insert jobs of one lane, and return them by id."""
    SquashJob.rows(using).bulk_create([SquashJob(**values) for values in columns])
    return list(SquashJob.rows(using).order_by("id"))


def work_off(using: str, budget: Budget | None = None) -> Any:
    lanes = sorted(set(SquashJob.rows(using).values_list("lane", flat=True)))
    return run_lanes(SquashJob, using, lanes, budget or Budget.endless())


def statuses(using: str) -> list[str]:
    return list(SquashJob.rows(using).order_by("id").values_list("status", flat=True))


def test_only_the_newest_of_a_lane_runs_and_the_others_name_it(using: str, ran: list[int]) -> None:
    *older, newest = lane(using, {}, {}, {"unique_key": "nightly"}, {})
    elsewhere = SquashJob.enqueue(using=using, shop="b")
    with received(signals.jobs_squashed) as told:
        work_off(using)

    assert sorted(ran) == [newest.pk, elsewhere.pk]
    rows = SquashJob.rows(using).filter(pk__in=[job.pk for job in older])
    assert set(rows.values_list("status", "error_message", "waiting_key")) == {
        ("SQUASHED", f"superseded by job {newest.pk}", None)
    }
    assert set(rows.values_list("run_after", "attempt")) == {(None, 0)}
    [about] = told
    assert (about["newest_id"], about["rows"], about["lane"]) == (newest.pk, 3, newest.lane)


def test_deferred_and_later_jobs_before_the_newest_due_one_are_squashed(
    using: str, ran: list[int]
) -> None:
    hour = timezone.now() + timedelta(hours=1)
    jobs = lane(using, {"status": "DEFERRED"}, {}, {"run_after": hour}, {}, {"run_after": hour})
    work_off(using)
    assert ran == [jobs[3].pk]
    assert statuses(using) == ["SQUASHED", "SQUASHED", "SQUASHED", "PROCESSED", "NEW"]


def test_a_head_that_is_not_due_keeps_its_lane_as_it_is(using: str, ran: list[int]) -> None:
    hour = timezone.now() + timedelta(hours=1)
    lane(using, {"run_after": hour}, {}, {})
    work_off(using)
    assert (ran, statuses(using)) == ([], ["NEW", "NEW", "NEW"])


@pytest.mark.parametrize("status", ["PROCESSED", "SQUASHED", "IGNORED", "FAILED"])
def test_what_does_not_wait_is_never_rewritten(using: str, status: str) -> None:
    before, *_ = lane(using, {}, {"status": status, "error_message": "as it was"}, {}, {})
    if status == "FAILED":
        SquashJob.rows(using).filter(status="FAILED").update(failed_by=before.pk - 1)
    work_off(using)
    row = SquashJob.rows(using).get(error_message="as it was")
    assert row.status == status
    assert statuses(using) == ["SQUASHED", status, "SQUASHED", "PROCESSED"]


def test_jobs_behind_a_failed_one_supersede_nothing(using: str, ran: list[int]) -> None:
    jobs = lane(using, {}, {}, {"status": "FAILED"}, {}, {})
    work_off(using)
    assert ran == [jobs[1].pk]
    assert statuses(using) == ["SQUASHED", "PROCESSED", "FAILED", "FAILED", "FAILED"]


def test_a_lane_that_is_held_paused_or_running_is_left_alone(
    using: str, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SquashJob, "FAILURE_POLICY", FailurePolicy.HOLD_LANE)
    cause, first, *_ = lane(using, {"status": "FAILED"}, {}, {}, {})
    work_off(using)
    assert statuses(using) == ["FAILED", "NEW", "NEW", "NEW"]

    cause.delete()
    first.pause_lane()
    work_off(using)
    assert statuses(using) == ["NEW", "NEW", "NEW"]

    first.resume_lane()
    assert first.claim()
    work_off(using)
    assert (ran, statuses(using)) == ([], ["PROCESSING", "NEW", "NEW"])


def test_what_came_while_a_job_ran_is_folded_before_the_next_one(
    using: str, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = SquashJob.process

    def enqueue_more(self: Any) -> None:
        process(self)
        if len(ran) == 1:
            SquashJob.rows(using).bulk_create([SquashJob(), SquashJob(), SquashJob()])

    monkeypatch.setattr(SquashJob, "process", enqueue_more)
    lane(using, {})
    work_off(using)
    assert len(ran) == 2, "the successor was not handed the lane past its newer ones"
    assert statuses(using) == ["PROCESSED", "SQUASHED", "SQUASHED", "PROCESSED"]


def test_a_long_lane_is_folded_by_turns_within_the_budget(
    using: str, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squashing, "SQUASH_CHUNK", 10)
    first, *_ = lane(using, *[{}] * 36)
    SquashJob.enqueue(using=using, shop="b")

    report = work_off(using, Budget(rows=3, seconds=60))
    assert (report.left_over, report.rows) == ([first.lane], 1)
    assert statuses(using).count("SQUASHED") == 20, "two turns, and a body in the other lane"

    report = work_off(using)
    assert (report.left_over, len(ran)) == ([], 2)
    assert statuses(using) == ["SQUASHED"] * 35 + ["PROCESSED"] * 2


@CONCURRENT
@pytest.mark.parametrize("verb", ["claim", "cancel"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_job_that_is_claimed_or_cancelled_at_that_moment_is_not_rewritten(
    using: str, verb: str, which: int
) -> None:
    jobs = lane(using, {}, {}, {})
    taken = jobs[which]
    head = JobLaneFeed(SquashJob.rows(using), taken.lane).candidate()

    with (
        open_transaction(using, lambda: getattr(taken, verb)()) as taking,
        in_a_thread(lambda: squashing.fold(SquashJob.rows(using), head)) as folding,
    ):
        let_them_meet(folding, using)
        taking.committed()

    found = statuses(using)
    assert found[which] == ("PROCESSING" if verb == "claim" else "IGNORED")
    assert "NEW" in found, "the work is still to be done by one of them"
    if which == 1:
        assert found[0] == "SQUASHED"
    else:
        assert "SQUASHED" not in found


@CONCURRENT
def test_the_newest_can_not_be_cancelled_while_others_are_folded_into_it(using: str) -> None:
    first, _, newest = lane(using, {}, {}, {})
    head = JobLaneFeed(SquashJob.rows(using), first.lane).candidate()

    def cancel() -> None:
        with transaction.atomic(using=using):
            newest.cancel()

    with (
        open_transaction(using, lambda: squashing.fold(SquashJob.rows(using), head)) as folding,
        in_a_thread(cancel) as cancelling,
    ):
        let_them_meet(cancelling, using)
        assert not cancelling.done(), "it waits for the lock"
        folding.committed()
    assert statuses(using) == ["SQUASHED", "SQUASHED", "IGNORED"]
