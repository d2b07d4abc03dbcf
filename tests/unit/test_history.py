"""The checker of histories finds each kind of broken promise, and only those."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.history import History
from tests.faults.ledger import Entry, Ledger
from tests.unit.histories import committed, entries, run

A = ("a", "lane")
B = ("b", "lane")


def history(*lines: str, lease: float = 10) -> History:
    """Make one of lines as "began a by w1 in lane", one per second."""
    return History(entries(*lines), lease=lease)


def test_a_history_as_it_should_be_has_no_problems() -> None:
    assert not history(*committed("a", "b"), *run("a"), *run("b")).problems()


def test_what_was_committed_and_never_ended_is_lost() -> None:
    found = history(*committed("a", "b"), *run("a"), "began b by w1")
    assert found.lost() == {"b"}


def test_what_broke_is_lost_until_it_ends() -> None:
    lines = [*committed("a"), "began a by w1", "broke a by w1"]
    assert history(*lines).lost() == {"a"}
    assert not history(*lines, *run("a")).problems()


def test_what_began_without_a_commit_is_a_ghost() -> None:
    assert history("intended a", "aborted a", *run("a")).ghosts() == {"a"}


def test_what_the_database_knows_counts_more_than_the_producers_word() -> None:
    entries = history("intended a", *run("a")).entries
    assert History(entries, committed={"a"}).problems() == []
    assert History(entries, committed={"a", "b"}).lost() == {"b"}


def test_a_second_end_is_a_repetition_and_may_be_allowed() -> None:
    found = history(*committed("a"), *run("a"), *run("a", "w2"))
    assert found.repeated() == {"a": 1}
    assert found.problems(repeats_allowed=1) == []
    assert len(found.problems()) == 1


def test_a_body_that_was_cut_off_is_no_repetition() -> None:
    lines = [*committed("a"), "began a by w1 in lane", "gone - by w1", *run("a", "w2")]
    assert history(*lines).problems() == []


def test_bodies_of_a_lane_that_overlap_are_found() -> None:
    lines = ["began a by w1 in lane", "began b by w2 in lane", "ended a by w1", "ended b by w2"]
    assert [(a.item, b.item) for a, b in history(*lines).overlaps()] == [("a", "b")]


def test_a_long_body_overlaps_more_than_its_neighbour() -> None:
    lines = ["began a by w1 in lane", *run("b", "w2"), *run("c", "w3"), "ended a by w1"]
    assert [(a.item, b.item) for a, b in history(*lines).overlaps()] == [("a", "b"), ("a", "c")]


def test_bodies_of_two_lanes_may_overlap() -> None:
    lines = ["began a by w1 in one", "began b by w2 in two", "ended a by w1", "ended b by w2"]
    assert not list(history(*lines).overlaps())


@pytest.mark.parametrize(("lease", "overlaps"), [(3, 0), (5, 1)])
def test_an_overlap_is_excused_by_a_hold_past_the_lease(lease: float, overlaps: int) -> None:
    lines = ["began a by w1 in lane", "held - by w1", *run("a", "w2"), "released - by w1"]
    assert len(list(history(*lines, "ended a by w1", lease=lease).overlaps())) == overlaps


def test_a_hold_that_was_over_before_excuses_nothing() -> None:
    held = ["held - by w1", "released - by w1"]
    lines = ["began a by w1 in lane", "began b by w2 in lane", "ended a by w1", "ended b by w2"]
    assert len(list(history(*held, *lines, lease=1).overlaps())) == 1


def test_what_was_committed_before_another_was_written_runs_before_it() -> None:
    found = history(*committed("a", "b"), *run("b"), *run("a"))
    assert [(a.item, b.item) for a, b in found.inverted()] == [("a", "b")]


def test_what_was_written_at_the_same_time_may_run_in_any_order() -> None:
    written = ["intended a", "intended b", "committed a", "committed b"]
    assert not list(history(*written, *run("b"), *run("a")).inverted())


def test_a_repetition_after_a_later_one_is_out_of_order() -> None:
    found = history(*committed("a", "b"), *run("a"), *run("b"), *run("a", "w2"))
    assert [(a.item, b.item) for a, b in found.inverted()] == [("a", "b")]


def test_a_repetition_by_who_was_held_is_excused() -> None:
    held = ["began a by w2 in lane", "held - by w2", "released - by w2", "ended a by w2"]
    lines = [*committed("a", "b"), *run("a"), *run("b"), *held]
    assert len(list(history(*lines, lease=1).inverted())) == 0
    assert len(list(history(*lines, lease=2).inverted())) == 1


def test_a_commit_that_nobody_saw_return_comes_before_nothing() -> None:
    lines = ["intended a", *committed("b"), *run("b"), *run("a")]
    entries = history(*lines).entries
    assert not list(History(entries, committed={"a", "b"}).inverted())


def test_the_ledger_gives_back_what_processes_noted(tmp_path: Path) -> None:
    seconds = iter([2.0, 1.0])
    ledger = Ledger(tmp_path / "ledger", clock=lambda: next(seconds))
    ledger.note("ended", *A, process="w1", note="late")
    ledger.note("began", *B, process="w2")
    assert ledger.entries() == [
        Entry(1.0, "began", *B, "w2"),
        Entry(2.0, "ended", *A, "w1", "late"),
    ]
    assert Ledger(tmp_path / "nothing").entries() == []
