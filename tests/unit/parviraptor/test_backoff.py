"""Back-off: the arithmetic of the pauses, as a table."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from parviraptor_celery.backoff import BackoffStrategy, bounded, full_jitter, job_delay


@pytest.mark.parametrize(
    ("errors_before", "minutes"),
    [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 32), (6, 32), (19, 32), (10_000, 32)],
)
def test_exponential_pauses_double_up_to_the_fifth_error(errors_before: int, minutes: int) -> None:
    pause = job_delay(BackoffStrategy.EXPONENTIAL, 2, errors_before)
    assert pause == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("step", "errors_before", "pause"),
    [
        (3, 0, timedelta(minutes=1)),
        (3, 2, timedelta(minutes=9)),
        (3, 9, timedelta(minutes=243)),
        (1, 4, timedelta(minutes=1)),
        (0.5, 1, timedelta(seconds=30)),
        (1.5, 2, timedelta(minutes=2, seconds=15)),
    ],
)
def test_exponential_pauses_are_powers_of_the_step(
    step: float, errors_before: int, pause: timedelta
) -> None:
    assert job_delay(BackoffStrategy.EXPONENTIAL, step, errors_before) == pause


@pytest.mark.parametrize("errors_before", [0, 1, 5, 100])
@pytest.mark.parametrize(("step", "seconds"), [(2, 120), (0.25, 15), (7, 420)])
def test_constant_pauses_are_the_step(errors_before: int, step: float, seconds: int) -> None:
    pause = job_delay(BackoffStrategy.CONSTANT, step, errors_before)
    assert pause == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("errors_before", "ceiling"), [(0, 1), (1, 2), (3, 8), (6, 60), (1000, 60)]
)
def test_jitter_lies_between_zero_and_a_capped_exponential(
    errors_before: int, ceiling: float
) -> None:
    source = random.Random(7)
    pauses = [
        full_jitter(errors_before, base_seconds=1, cap_seconds=60, uniform=source).total_seconds()
        for _ in range(300)
    ]
    assert min(pauses) >= 0
    assert ceiling * 0.9 < max(pauses) <= ceiling


@pytest.mark.parametrize(
    ("seconds", "pause"),
    [
        (float("nan"), timedelta(0)),
        (-5, timedelta(0)),
        (90, timedelta(seconds=90)),
        (float("inf"), timedelta(days=365)),
        (1e300, timedelta(days=365)),
    ],
)
def test_a_pause_is_one_that_a_date_can_be_moved_by(seconds: float, pause: timedelta) -> None:
    assert bounded(seconds) == pause


def test_a_huge_step_is_no_overflow() -> None:
    assert job_delay(BackoffStrategy.EXPONENTIAL, 1e90, 5) == timedelta(days=365)


@pytest.mark.parametrize(
    ("errors_before", "cap", "minutes"),
    [(0, 5, 1), (2, 5, 4), (3, 5, 5), (9, 5, 5), (9, None, 32), (3, 0.5, 0.5), (3, 0, 0)],
)
def test_a_cap_ends_the_growth(errors_before: int, cap: float | None, minutes: float) -> None:
    pause = job_delay(BackoffStrategy.EXPONENTIAL, 2, errors_before, cap_minutes=cap)
    assert pause == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("jitter", "drawn", "seconds"),
    [(0, 0.3, 120), (0.1, 0, 120), (0.1, 0.05, 126), (0.1, 0.1, 132), (1, 1, 240)],
)
def test_jitter_lengthens_the_pause_by_a_share_of_it(
    jitter: float, drawn: float, seconds: float
) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return drawn

    pause = job_delay(BackoffStrategy.CONSTANT, 2, 0, jitter=jitter, uniform=uniform)
    assert pause == timedelta(seconds=seconds)
    assert asked == ([(0, jitter)] if jitter else [])


def test_jitter_comes_on_top_of_the_cap() -> None:
    pause = job_delay(
        BackoffStrategy.EXPONENTIAL, 2, 5, cap_minutes=10, jitter=0.5, uniform=lambda _, high: high
    )
    assert pause == timedelta(minutes=15)


def test_jitter_is_drawn_anew_for_each_pause() -> None:
    pauses = {job_delay(BackoffStrategy.CONSTANT, 2, 0, jitter=1) for _ in range(20)}
    assert len(pauses) > 1
    assert all(timedelta(minutes=2) <= pause <= timedelta(minutes=4) for pause in pauses)
