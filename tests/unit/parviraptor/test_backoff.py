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
