"""The explorer itself: it plays every schedule within its bound once, and can play each again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import comb

import pytest

from tests import faults
from tests.faults.explorer import NUMBER_KNOB, allowed, explore, replay
from tests.faults.stage import gate


@pytest.fixture(autouse=True)
def _no_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "IS_WIDE", False)
    monkeypatch.delenv(NUMBER_KNOB, raising=False)


class Counting:
    """Two actors add one to a number, each by reading and writing it in two steps."""

    names = "AB"
    using = "default"

    def __init__(self, preemptions: int) -> None:
        self.preemptions = preemptions
        self.played: list[str] = []

    def arrange(self) -> Mapping[str, Callable[[], object]]:
        self.number, self.trace = 0, ""
        return {name: self.add(name) for name in self.names}

    def add(self, name: str) -> Callable[[], object]:
        def part() -> None:
            gate("reads")
            self.trace += name
            seen = self.number
            gate("writes")
            self.trace += name
            self.number = seen + 1

        return part

    def look(self, label: str) -> list[str]:
        return []

    def conclude(self, errors: Mapping[str, BaseException]) -> tuple[list[str], str]:
        self.played.append(self.trace)
        return [], f"{self.number}"


class Careful(Counting):
    def conclude(self, errors: Mapping[str, BaseException]) -> tuple[list[str], str]:
        return ([] if self.number == 2 else ["an addition is lost"]), ""


@pytest.mark.parametrize(("preemptions", "schedules"), [(0, 2), (1, 4), (2, 6), (9, 6)])
def test_plays_each_schedule_within_the_bound_once(preemptions: int, schedules: int) -> None:
    scenario = Counting(preemptions)
    found = explore(scenario)
    played = scenario.played[1:]  # the first is for what is asked once and kept
    assert found.schedules == len(played) == len(set(played)) == schedules
    assert comb(4, 2) == 6, "all there are"


def test_meets_the_kinds_of_ends_that_there_are() -> None:
    assert explore(Counting(0)).kinds == {"2": 2}
    assert explore(Counting(1)).kinds == {"2": 2, "1": 2}


def test_tells_the_simplest_schedule_that_breaks_a_promise_and_plays_it_again() -> None:
    with pytest.raises(AssertionError, match="an addition is lost\nschedule: A B B A\n  A reads"):
        explore(Careful(2))
    assert replay(Careful(2), "A B B A").problems == ["an addition is lost"]
    assert replay(Careful(2), "A A B B").problems == []


def test_an_actor_that_waits_for_another_costs_no_preemption() -> None:
    scenario = Counting(0)

    def wait() -> None:
        gate("waits", lambda: scenario.trace.count("B") == 2)
        scenario.trace += "A"

    scenario.add = lambda name: wait if name == "A" else Counting.add(scenario, name)  # type: ignore[method-assign]
    assert explore(scenario).schedules == 1
    assert scenario.played[1:] == ["BBA"]


def test_the_error_of_an_actor_is_told_and_the_others_come_to_their_end() -> None:
    class Failing(Counting):
        def conclude(self, errors: Mapping[str, BaseException]) -> tuple[list[str], str]:
            return [f"{name} {error}" for name, error in errors.items()], ""

    def fail() -> None:
        gate("fails")
        raise ValueError("as it was told")

    scenario = Failing(0)
    scenario.add = lambda name: fail if name == "A" else Counting.add(scenario, name)  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="A as it was told\nschedule: A B B"):
        explore(scenario)


def test_the_knob_widens_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allowed(Counting(1)) == 1
    monkeypatch.setattr(faults, "IS_WIDE", True)
    assert allowed(Counting(1)) == 2
    monkeypatch.setenv(NUMBER_KNOB, "5")
    assert allowed(Counting(1)) == 5
