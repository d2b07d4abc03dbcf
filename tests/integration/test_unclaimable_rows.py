"""Rows that a worker can't read or claim: each waits a minute, and keeps no other from running."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.db.models.expressions import RawSQL
from django.utils import timezone

from jaiminho_celery import sweep as relay_sweep
from jaiminho_celery.models import Event
from parviraptor_celery import broker, execution, pool_feed, signals, sweep
from parviraptor_celery.database import in_transaction
from parviraptor_celery.dispatch import JobLaneFeed, JobPoolFeed
from parviraptor_celery.drains import Budget
from tests.faults.canaries import listening
from tests.integration.working_off import enqueue, statuses, work_off
from tests.testapp import outbox as functions
from tests.testapp.models import FreeJob, LaneJob, PickyFreeJob, PickyLaneJob
from tests.unit.jobs import received

PAST_ALL_COUNTS = {"sqlite": 2**63 - 1, "postgresql": 2**31 - 1, "mysql": 2**31 - 1}
"""The last attempt that each engine stores: no claim can be counted after it."""


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr(broker, "kick", lambda *_, **__: True)


def waits_a_minute(due: datetime) -> bool:
    return timedelta(seconds=50) < due - timezone.now() < timedelta(seconds=70)


class TestARowThatCanNotBeRead:
    def test_waits_at_the_head_of_its_lane_for_a_worker_that_can(self, using: str) -> None:
        first, _ = enqueue(PickyLaneJob, using, ["unreadable", ""])
        enqueue(PickyLaneJob, using, [""], shop="b")
        assert work_off(PickyLaneJob, using) == 1  # of the other lane
        assert statuses(PickyLaneJob, using) == ["NEW", "NEW", "PROCESSED"]
        row = PickyLaneJob.rows(using).defer("script").get(pk=first.pk)
        assert waits_a_minute(row.run_after)
        assert (row.error_count, row.worker_deaths, row.attempt) == (0, 0, 0)
        assert "could not be read" in row.error_message

        PickyLaneJob.rows(using).update(script="", run_after=None)  # a worker that can
        work_off(PickyLaneJob, using)
        assert statuses(PickyLaneJob, using) == ["PROCESSED"] * 3

    def test_as_a_successor_leaves_the_outcome_of_its_predecessor_alone(self, using: str) -> None:
        _, second, _ = enqueue(PickyLaneJob, using, ["", "unreadable", ""])
        with received(signals.lease_lost) as lost:
            work_off(PickyLaneJob, using)
        assert statuses(PickyLaneJob, using) == ["PROCESSED", "NEW", "NEW"]
        assert lost == []
        row = PickyLaneJob.rows(using).defer("script").get(pk=second.pk)
        assert (row.running_lane, row.lease_until, row.begun_at) == (None, None, None)
        assert row.run_after > timezone.now()

    def test_as_a_successor_keeps_its_unique_key(self, using: str) -> None:
        enqueue(PickyLaneJob, using, [""])
        enqueue(PickyLaneJob, using, ["unreadable"], unique_key="one")
        work_off(PickyLaneJob, using)
        assert statuses(PickyLaneJob, using) == ["PROCESSED", "NEW"]
        row = PickyLaneJob.rows(using).defer("script").get(status="NEW")
        assert row.waiting_key == "one"
        assert waits_a_minute(row.run_after)

    def test_as_a_successor_is_put_back_though_the_answer_is_lost(self, using: str) -> None:
        first, second = enqueue(PickyLaneJob, using, ["", "unreadable"])
        assert first.claim()
        run = execution.run(first)
        assert run.settle()
        assert second.claim()
        feed = JobLaneFeed(PickyLaneJob.rows(using), first.lane)
        assert feed.hand_off_again(run) is None
        assert statuses(PickyLaneJob, using) == ["PROCESSED", "NEW"]

    def test_keeps_no_independent_job_from_running(self, using: str) -> None:
        enqueue(PickyFreeJob, using, ["", "unreadable", "", ""])
        work_off(PickyFreeJob, using)
        assert statuses(PickyFreeJob, using) == ["PROCESSED", "NEW", "PROCESSED", "PROCESSED"]

    def test_is_rescued_like_any_other(self, using: str) -> None:
        (job,) = enqueue(PickyLaneJob, using, [""])
        assert job.claim()
        past = timezone.now() - timedelta(minutes=1)
        PickyLaneJob.rows(using).update(script="unreadable", lease_until=past)
        assert sweep.rescue(PickyLaneJob, using) == 1
        assert statuses(PickyLaneJob, using) == ["NEW"]

    def test_is_named_in_the_log_without_what_it_holds(
        self, using: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        enqueue(PickyFreeJob, using, ["unreadable"])
        with caplog.at_level(logging.DEBUG, logger="parviraptor_celery"):
            work_off(PickyFreeJob, using)
        assert "can't be read here" in caplog.text
        assert "none of ours" not in caplog.text


class TestAJobThatCanNotBeClaimed:
    """Its attempt can't be counted on: a value that only somebody past the model writes."""

    def spoil(self, queue: Any, using: str, pk: int) -> None:
        last = PAST_ALL_COUNTS[connections[using].vendor]
        queue.rows(using).filter(pk=pk).update(attempt=last)

    @pytest.mark.parametrize("queue", [LaneJob, FreeJob])
    def test_waits_a_minute_with_its_reason_and_is_named_in_the_log(
        self, using: str, queue: Any
    ) -> None:
        lanes = {} if queue is FreeJob else {"shop": "b"}
        [spoilt] = enqueue(queue, using, [""])
        enqueue(queue, using, ["", ""], **lanes)
        self.spoil(queue, using, spoilt.pk)
        with listening() as lines:
            assert work_off(queue, using) == 2
        assert statuses(queue, using) == ["NEW", "PROCESSED", "PROCESSED"]
        row = queue.rows(using).get(pk=spoilt.pk)
        assert waits_a_minute(row.run_after)
        assert row.error_message.startswith("could not be claimed by a worker: ")
        assert (row.error_count, row.worker_deaths) == (0, 0)
        named = f"{queue._meta.label} {spoilt.pk} can't be claimed here ("
        [line] = [line for line in lines if named in line]
        assert line.rstrip().endswith(") and waits a minute")

        queue.rows(using).filter(pk=spoilt.pk).update(attempt=0, run_after=None)
        work_off(queue, using)
        assert statuses(queue, using) == ["PROCESSED"] * 3

    def test_as_a_successor_leaves_the_outcome_of_its_predecessor_alone(self, using: str) -> None:
        _, second = enqueue(LaneJob, using, ["", ""])
        self.spoil(LaneJob, using, second.pk)
        with received(signals.lease_lost) as lost:
            work_off(LaneJob, using)
        assert statuses(LaneJob, using) == ["PROCESSED", "NEW"]
        assert lost == []
        assert waits_a_minute(LaneJob.rows(using).get(pk=second.pk).run_after)


@pytest.mark.parametrize("using", ["postgresql"], indirect=True)
class TestADateThatPythonDoesNotHave:
    """It comes from the database itself: the driver raises before any field is asked."""

    def spoil(self, queue: Any, using: str, pk: int) -> None:
        queue.rows(using).filter(pk=pk).update(run_after=RawSQL("%s::timestamptz", ["-infinity"]))

    @pytest.mark.parametrize("queue", [LaneJob, FreeJob])
    def test_lets_its_job_wait_a_minute(self, using: str, queue: Any) -> None:
        [spoilt] = enqueue(queue, using, [""])
        enqueue(queue, using, [""], **({} if queue is FreeJob else {"shop": "b"}))
        self.spoil(queue, using, spoilt.pk)
        work_off(queue, using)
        assert statuses(queue, using) == ["NEW", "PROCESSED"]
        assert waits_a_minute(queue.rows(using).get(pk=spoilt.pk).run_after)

    def test_as_a_successor_leaves_the_outcome_of_its_predecessor_alone(self, using: str) -> None:
        _, second = enqueue(LaneJob, using, ["", ""])
        self.spoil(LaneJob, using, second.pk)
        with received(signals.lease_lost) as lost, received(signals.job_finished) as finished:
            work_off(LaneJob, using)
        assert statuses(LaneJob, using) == ["PROCESSED", "NEW"]
        assert (len(finished), lost) == (1, [])
        row = LaneJob.rows(using).get(pk=second.pk)
        assert waits_a_minute(row.run_after)
        assert (row.running_lane, row.lease_until, row.begun_at) == (None, None, None)


class TestABatch:
    def test_of_which_nothing_can_be_read_is_passed_over(self, using: str) -> None:
        enqueue(PickyFreeJob, using, ["unreadable"] * 150 + [""])
        assert work_off(PickyFreeJob, using) == 1
        assert statuses(PickyFreeJob, using)[-1] == "PROCESSED"

    def test_that_is_spoilt_runs_nothing_that_another_worker_ran_meanwhile(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, *_ = enqueue(PickyFreeJob, using, ["", "unreadable", ""])
        feed = JobPoolFeed(PickyFreeJob.rows(using), 10, Budget.endless())
        look = feed.next_apart

        def and_another_worker_runs_the_first() -> list[Any]:
            seen = look()
            assert first.claim()
            assert first.rest("PROCESSED")
            return seen

        monkeypatch.setattr(feed, "next_apart", and_another_worker_runs_the_first)
        claimed = feed.first()
        assert claimed.pk > first.pk
        assert PickyFreeJob.rows(using).values_list("attempt", flat=True).get(pk=first.pk) == 1

    def test_that_is_spoilt_is_claimed_though_the_answer_is_lost(
        self, using: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, *_ = enqueue(PickyFreeJob, using, ["", "unreadable"])

        def unanswered(
            using: str, body: Callable[[], Any], *, again: Callable[[], Any] | None = None
        ) -> Any:
            in_transaction(using, body)
            return in_transaction(using, again or body)

        monkeypatch.setattr(pool_feed, "in_transaction", unanswered)
        claimed = JobPoolFeed(PickyFreeJob.rows(using), 10, Budget.endless()).first()
        assert (claimed.pk, claimed.attempt) == (first.pk, 1)


@pytest.mark.usefixtures("one_database")
class TestAnEventThatCanNotBeClaimed:
    @pytest.fixture(autouse=True)
    def _without_hooks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        functions.forget()

    def written(self, function: Any, using: str, count: int, **columns: Any) -> list[int]:
        with transaction.atomic(using=using):
            for number in range(count):
                function(f"shop {number}", number)
        Event.rows(using).update(run_after=timezone.now() - timedelta(days=1), **columns)
        return list(Event.rows(using).order_by("id").values_list("pk", flat=True))

    def relay(self, using: str) -> None:
        relay_sweep.sweep_all(Budget.endless(), force=True)
        relay_sweep.relay_here(using, Budget.endless())

    @pytest.mark.parametrize("function", [functions.per_shop, functions.bare])
    def test_waits_a_minute_with_its_reason(self, using: str, function: Any) -> None:
        columns = {} if function is functions.per_shop else {"status": "WAITING"}
        first, *_ = self.written(function, using, 3, **columns, lease_until=None)
        last = PAST_ALL_COUNTS[connections[using].vendor]
        Event.rows(using).filter(pk=first).update(attempt=last)
        with listening() as lines:
            self.relay(using)
        row = Event.rows(using).exclude(status="SENT").get()
        assert (row.pk, row.status, row.error_count) == (first, "WAITING", 0)
        assert waits_a_minute(row.run_after)
        assert row.error_message.startswith("could not be claimed by a worker: ")
        assert any(f"Event {first} can't be claimed here (" in line for line in lines)

    @pytest.mark.parametrize("using", ["postgresql"], indirect=True)
    def test_for_its_lane_is_none_waits_a_minute(self, using: str) -> None:
        first, *_ = self.written(functions.per_shop, using, 2)
        Event.rows(using).filter(pk=first).update(lane="no lane at all")
        self.relay(using)
        row = Event.rows(using).exclude(status="SENT").get()
        assert (row.pk, row.status) == (first, "WAITING")
        assert waits_a_minute(row.run_after)


def test_a_table_that_can_not_be_read_at_all_is_still_an_error(using: str) -> None:
    with pytest.raises(DatabaseError), transaction.atomic(using=using):
        FreeJob.rows(using).extra(where=["no_such_column = 1"]).read_unlocked(5)
