"""How many jobs are leased at a time: as many as take a fraction of a second."""

from __future__ import annotations

import pytest

from parviraptor_celery import pace
from parviraptor_celery.pace import FIRST, MOST, Pace


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr(pace.time, "monotonic", lambda: self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def work_off(found: Pace, clock: Clock, seconds: float, rows: int | None = None) -> int:
    """Run a batch of `rows`, by default as many as may be, and return the size of the next."""
    found.begin(found.next_batch() if rows is None else rows)
    clock.seconds += seconds
    return found.next_batch()


def test_quick_batches_double_up_to_a_limit(clock: Clock) -> None:
    found = Pace()
    sizes = [work_off(found, clock, 0.1) for _ in range(5)]
    assert sizes == [FIRST * 2, FIRST * 4, FIRST * 8, MOST, MOST]


def test_slow_batches_halve_down_to_a_single_job(clock: Clock) -> None:
    found = Pace()
    assert [work_off(found, clock, 30) for _ in range(5)] == [5, 2, 1, 1, 1]


def test_a_batch_that_was_not_full_says_nothing_of_larger_ones(clock: Clock) -> None:
    assert work_off(Pace(), clock, 0.01, rows=3) == FIRST


def test_a_batch_between_quick_and_slow_was_right(clock: Clock) -> None:
    assert work_off(Pace(), clock, 0.5) == FIRST


def test_the_time_without_work_does_not_count(clock: Clock) -> None:
    found = Pace()
    found.begin(FIRST)
    found.end()
    clock.seconds += 3600
    assert found.next_batch() == FIRST


def test_a_queue_goes_on_with_what_it_found_out(clock: Clock) -> None:
    class Queue: ...

    class Other: ...

    work_off(Pace.of(Queue), clock, 0.1)
    assert (Pace.of(Queue).next_batch(), Pace.of(Other).next_batch()) == (FIRST * 2, FIRST)
