"""Ticks: periodic work that is asked for twice is done once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from parviraptor_celery.models import Tick

pytestmark = pytest.mark.django_db


def test_the_first_to_ask_gets_it() -> None:
    assert [Tick.objects.take("work", 30, using="default") for _ in range(3)] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(("seconds_ago", "is_due"), [(29, False), (31, True), (-60, False)])
def test_it_is_due_again_after_its_interval(seconds_ago: int, is_due: bool) -> None:
    Tick.objects.create(name="work", last_at=timezone.now() - timedelta(seconds=seconds_ago))
    assert Tick.objects.take("work", 30, using="default") is is_due


def test_one_that_was_never_done_is_due() -> None:
    Tick.objects.create(name="work")
    assert Tick.objects.take("work", 30, using="default")


def test_kinds_of_work_do_not_stand_in_for_each_other() -> None:
    assert Tick.objects.take("work", 30, using="default")
    assert Tick.objects.take("other work", 30, using="default")


def test_a_cursor_starts_at_the_beginning_and_is_kept() -> None:
    assert Tick.cursor_of("work", "default") == ""
    Tick.save_cursor("work", "abc", "default")
    assert Tick.cursor_of("work", "default") == "abc"
    assert Tick.cursor_of("other work", "default") == ""


def test_a_cursor_does_not_count_as_work_done() -> None:
    Tick.save_cursor("work", "abc", "default")
    assert Tick.objects.take("work", 30, using="default")
    assert Tick.cursor_of("work", "default") == "abc"
