"""A repetition needs a fault that explains it: the rules find those that have none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults import causes
from tests.faults.history import History
from tests.unit.histories import committed, entries, run

BATCH = 2


def unexplained(*lines: str) -> list[str]:
    return causes.unexplained(History(entries(*lines)), ["a", "b"])


def unexplained_messages(*lines: str) -> list[str]:
    history = History(entries(*lines))
    return causes.unexplained_messages(history, "a", BATCH, {"killed", "cut off"}, "again")


def test_what_ran_once_needs_no_reason() -> None:
    assert unexplained(*committed("a"), *run("a")) == []


def test_a_repetition_without_a_fault_is_found() -> None:
    assert len(unexplained(*committed("a"), *run("a"), *run("a"))) == 1


def test_a_kind_that_was_not_asked_for_is_left_out() -> None:
    assert unexplained(*committed("c"), *run("c"), *run("c")) == []


@pytest.mark.parametrize(
    "lines",
    [
        ["began a by w1", "struck - by w1", "ended a by w1"],
        [*run("a"), "struck - by w1"],
        ["struck - by w1", *run("a")],
        ["struck - by w1", *run("a"), "gone - by w1"],
        ["struck - by w1", *run("b"), *run("a"), "gone - by w1"],
    ],
    ids=["within", "after", "before", "while dying", "while dying, later"],
)
def test_a_strike_on_who_ran_it_explains_a_repetition(lines: list[str]) -> None:
    assert unexplained(*committed("a", "b"), *lines, *run("a", "w2")) == []


@pytest.mark.parametrize(
    "lines",
    [
        [*run("a"), "struck - by w2"],
        [*run("a"), *run("b"), "struck - by w1"],
        ["struck - by w1", *run("b"), *run("a")],
        ["struck - by w1", *run("b"), "gone - by w1", *run("b"), *run("a")],
    ],
    ids=["another process", "a run later", "a run earlier", "after its death"],
)
def test_a_strike_elsewhere_explains_nothing(lines: list[str]) -> None:
    found = unexplained(*committed("a", "b"), *lines, *run("a", "w3"))
    assert any("reason: a:" in problem for problem in found)


def test_a_strike_explains_one_repetition_only() -> None:
    lines = [*committed("a"), *run("a"), "struck - by w1", *run("a", "w2"), *run("a", "w3")]
    assert len(unexplained(*lines)) == 1
    assert unexplained(*lines[:-2], "struck - by w2", *run("a", "w3")) == []


def test_a_strike_is_left_for_the_repetition_that_has_no_other() -> None:
    lines = [*run("a", "w3"), *run("b"), "struck - by w1", *run("a"), "struck - by w1"]
    assert unexplained(*committed("a", "b"), *lines, *run("b", "w2")) == []
    assert len(unexplained(*committed("a", "b"), *lines[:-1], *run("b", "w2"))) == 1


def test_a_body_that_broke_and_was_tried_again_needs_no_reason() -> None:
    assert unexplained(*committed("a"), "began a by w1", "broke a by w1", *run("a")) == []


def test_a_message_that_came_twice_without_a_fault_is_found() -> None:
    assert len(unexplained_messages(*committed("a"), *run("a"), *run("a"))) == 1


def test_a_message_that_the_broker_says_it_hands_out_again_is_not_the_outbox() -> None:
    again = ["began a by w2 as again", "ended a by w2"]
    assert unexplained_messages(*committed("a"), *run("a"), *again) == []


def test_a_fault_between_writing_and_repetition_explains_a_message() -> None:
    for fault in ("struck - by w9 as killed", "fault - as cut_off"):
        lines: list[Any] = [*committed("a"), *run("a"), fault, *run("a", "w2")]
        assert unexplained_messages(*lines) == []


@pytest.mark.parametrize("fault", ["struck - by w9 as held", "fault - as two_beats"])
def test_a_fault_that_breaks_no_batch_explains_no_message(fault: str) -> None:
    assert len(unexplained_messages(*committed("a"), *run("a"), fault, *run("a", "w2"))) == 1


def test_a_fault_before_or_after_explains_no_message() -> None:
    fault = "fault - as killed"
    found = unexplained_messages(fault, *committed("a"), *run("a"), *run("a"), fault)
    assert len(found) == 1


def test_more_messages_than_a_batch_for_each_fault_are_found() -> None:
    items = ["a-1", "a-2", "a-3"]
    runs = [line for item in items for line in run(item)]
    lines = [*committed(*items), *runs, "fault - as killed"]
    assert unexplained_messages(*lines, *runs[:4]) == []
    assert unexplained_messages(*lines, *runs) == ["3 messages repeated after 1 faults"]
