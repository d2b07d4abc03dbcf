"""A job's end and its successor's claim: together, in one statement where the engine can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from parviraptor_celery import claims
from parviraptor_celery.dispatch import JobLaneFeed, JobPoolFeed
from parviraptor_celery.drains import Budget
from parviraptor_celery.models import AbstractJob
from tests.testapp.models import FifoJob, FreeJob


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def enqueue(queue: Any, using: str, count: int) -> list[Any]:
    queue.enqueue_many([queue() for _ in range(count)], using=using)
    return list(queue.rows(using).order_by("id"))


def lane_feed(job: AbstractJob, using: str) -> JobLaneFeed:
    return JobLaneFeed(type(job).rows(using), job.lane)


def pool_feed(using: str) -> JobPoolFeed:
    return JobPoolFeed(FreeJob.rows(using), 10, Budget.endless())


def statuses(queue: Any, using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))


@contextmanager
def statements(using: str) -> Iterator[CaptureQueriesContext]:
    with CaptureQueriesContext(connections[using]) as captured:
        yield captured


class TestInALane:
    def test_the_successor_is_claimed_and_knows_its_token(self, using: str) -> None:
        first, second = enqueue(FifoJob, using, 2)
        feed = lane_feed(first, using)
        run = feed.run(feed.first())
        successor = feed.settle(run, claim_next=True)
        assert (successor.pk, successor.status, successor.attempt) == (second.pk, "PROCESSING", 1)
        assert successor.token == 1
        assert run.is_recorded
        assert statuses(FifoJob, using) == ["PROCESSED", "PROCESSING"]
        row = FifoJob.rows(using).get(pk=second.pk)
        assert (row.running_lane, bool(row.lease_until), bool(row.begun_at)) == (
            second.lane,
            True,
            True,
        )

    def test_what_the_body_set_is_saved_with_it(self, using: str) -> None:
        first, _ = enqueue(FifoJob, using, 2)
        feed = lane_feed(first, using)
        feed.settle(feed.run(feed.first()), claim_next=True)
        assert FifoJob.rows(using).get(pk=first.pk).result == 1

    def test_what_is_not_due_is_not_claimed(self, using: str) -> None:
        first, second = enqueue(FifoJob, using, 2)
        due = second.creation_date + timedelta(hours=1)
        FifoJob.rows(using).filter(pk=second.pk).update(run_after=due)
        feed = lane_feed(first, using)
        assert feed.settle(feed.run(feed.first()), claim_next=True) is None
        assert statuses(FifoJob, using) == ["PROCESSED", "NEW"]

    def test_what_a_failed_job_holds_is_not_claimed(self, using: str) -> None:
        first, failed, _ = enqueue(FifoJob, using, 3)
        feed = lane_feed(first, using)
        run = feed.run(feed.first())
        FifoJob.rows(using).filter(pk=failed.pk).update(status="FAILED")
        assert feed.settle(run, claim_next=True) is None
        assert statuses(FifoJob, using) == ["PROCESSED", "FAILED", "NEW"]

    def test_who_lost_its_lease_records_nothing_and_claims_nothing(self, using: str) -> None:
        first, _ = enqueue(FifoJob, using, 2)
        feed = lane_feed(first, using)
        run = feed.run(feed.first())
        FifoJob.rows(using).filter(pk=first.pk).update(attempt=2)  # somebody else has it now
        assert feed.settle(run, claim_next=True) is None
        assert not run.is_recorded
        assert statuses(FifoJob, using) == ["PROCESSING", "NEW"]

    def test_a_value_that_can_not_be_stored_fails_its_own_job_only(self, using: str) -> None:
        first, second = enqueue(FifoJob, using, 2)
        feed = lane_feed(first, using)
        run = feed.run(feed.first())
        run.changes["result"] = "no number"
        assert feed.settle(run, claim_next=True) is None
        assert statuses(FifoJob, using) == ["FAILED", "NEW"]
        assert FifoJob.rows(using).get(pk=second.pk).attempt == 0

    def test_on_postgresql_it_is_one_statement(self, using: str) -> None:
        first, *_ = enqueue(FifoJob, using, 2)
        feed = lane_feed(first, using)
        run = feed.run(feed.first())
        with statements(using) as captured:
            assert feed.settle(run, claim_next=True)
        if claims.is_possible(using):
            assert len(captured) == 1, captured.captured_queries


class TestInABatch:
    def test_the_next_one_begins(self, using: str) -> None:
        enqueue(FreeJob, using, 3)
        feed = pool_feed(using)
        following = feed.settle(feed.run(feed.first()), claim_next=True)
        assert statuses(FreeJob, using) == ["PROCESSED", "PROCESSING", "PROCESSING"]
        begun = FreeJob.rows(using).filter(begun_at__isnull=False).values_list("pk", flat=True)
        assert following.pk in begun
        assert FreeJob.rows(using).order_by("-id").first().begun_at is None

    def test_one_that_was_taken_away_meanwhile_is_passed_over(self, using: str) -> None:
        _, taken, third = enqueue(FreeJob, using, 3)
        feed = pool_feed(using)
        run = feed.run(feed.first())
        FreeJob.rows(using).filter(pk=taken.pk).update(attempt=2)
        following = feed.settle(run, claim_next=True) or feed.first()
        assert following.pk == third.pk

    def test_on_postgresql_it_is_one_statement(self, using: str) -> None:
        enqueue(FreeJob, using, 3)
        feed = pool_feed(using)
        run = feed.run(feed.first())
        with statements(using) as captured:
            assert feed.settle(run, claim_next=True)
        if claims.is_possible(using):
            assert len(captured) == 1, captured.captured_queries


class TestTheOrderOfABatch:
    def test_is_by_priority_also_among_jobs_that_had_a_due_time(self, using: str) -> None:
        past = FreeJob().creation_date - timedelta(minutes=1)
        jobs = [
            FreeJob(),
            FreeJob(priority=5),
            FreeJob(run_after=past),
            FreeJob(run_after=past, priority=9),
            FreeJob(run_after=past + timedelta(hours=1), priority=99),
        ]
        FreeJob.enqueue_many(jobs, using=using)
        ids = list(FreeJob.rows(using).order_by("id").values_list("id", flat=True))
        feed, ran = pool_feed(using), []
        job = feed.first()
        while job is not None:
            ran.append(ids.index(job.pk))
            job = feed.settle(feed.run(job), claim_next=True) or feed.first()
        assert ran == [3, 1, 0, 2]
