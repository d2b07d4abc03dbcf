"""The verdict on a soak finds each kind of broken promise in a run that is made up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.soak.verdict import WORKERS, Evidence, Verdict
from tests.unit.histories import committed, entries, run

LEASE = 3


def problems(*lines: str, durable: bool = False, **evidence: Any) -> list[str]:
    told = entries(*lines)
    items = frozenset(entry.item for entry in told if entry.what == "committed")
    found = Evidence(**{"committed": items, "jobs": {}, **evidence})
    return Verdict(told, found, LEASE, durable).problems()


def test_a_run_as_it_should_be_has_no_problems() -> None:
    lines = [*committed("lane-1", "atomic-1"), *run("lane-1"), *run("atomic-1")]
    jobs = {"lane-1": "PROCESSED", "atomic-1": "PROCESSED"}
    assert problems(*lines, jobs=jobs, counted=1) == []


def test_a_job_that_never_ran_is_lost() -> None:
    assert problems(*committed("free-1")) == ["lost: free-1"]


def test_what_has_a_business_row_was_committed_whatever_its_producer_saw() -> None:
    assert problems("intended free-1", committed=frozenset({"free-1"})) == ["lost: free-1"]
    assert problems("intended free-1", *run("free-1"), committed=frozenset({"free-1"})) == []


def test_what_has_no_business_row_must_never_run() -> None:
    lines = ["intended free-1", "aborted free-1", *run("free-1")]
    assert problems(*lines) == ["ran though it was never committed: free-1"]


def test_bodies_of_a_lane_that_overlap_are_found() -> None:
    overlap = ["began lane-1 by w1 in x", "began lane-2 by w2 in x", "ended lane-1 by w1"]
    lines = [*committed("lane-1"), *committed("lane-2"), *overlap, "ended lane-2 by w2"]
    assert len(problems(*lines)) == 1


def test_a_lane_out_of_order_is_found() -> None:
    lines = [*committed("price-1", "price-2"), *run("price-2"), *run("price-1")]
    assert len(problems(*lines)) == 1


@pytest.mark.parametrize("kind", ["lane", "free", "new", "announce", "price"])
def test_a_body_that_repeats_without_a_fault_is_found(kind: str) -> None:
    lines = [*committed(f"{kind}-1"), *run(f"{kind}-1"), *run(f"{kind}-1")]
    assert len(problems(*lines)) == 1


def test_a_body_of_the_atomic_queue_may_repeat_and_counts_once() -> None:
    lines = [*committed("atomic-1"), *run("atomic-1"), *run("atomic-1")]
    assert problems(*lines, counted=1) == []
    assert problems(*lines, counted=2) == ["the atomic queue counted 2, not 1"]


@pytest.mark.parametrize("status", ["NEW", "PROCESSING", "FAILED", "DEFERRED"])
def test_a_job_that_did_not_come_to_rest_is_found(status: str) -> None:
    found = problems(*committed("free-1"), *run("free-1"), jobs={"free-1": status})
    assert found == [f"free-1 is {status}"]


def test_an_event_that_was_not_sent_is_found() -> None:
    assert problems(events=["Event 7 (DEAD)"]) == ["left in the outbox: Event 7 (DEAD)"]


def test_a_death_without_a_strike_is_found() -> None:
    assert problems("struck - by w1 as killed", worker_deaths=1) == []
    assert len(problems("struck - by w1 as killed", worker_deaths=2)) == 1


def test_a_message_may_be_lost_with_the_broker_that_held_it() -> None:
    assert len(problems(*committed("message-1"))) == 1
    assert problems(*committed("message-1"), "dropped message-1") == []


def test_redis_may_lose_as_many_messages_as_workers_were_hit() -> None:
    fault, items = "fault - as broker_restarted", [f"message-{n}" for n in range(WORKERS + 1)]
    assert problems(*committed(*items[:-1]), fault) == []
    assert len(problems(*committed(*items), fault)) == 1


def test_a_broker_that_is_durable_loses_nothing() -> None:
    lines = [*committed("message-1"), "fault - as broker_restarted"]
    assert len(problems(*lines, durable=True)) == 1
