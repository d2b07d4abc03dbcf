"""What beat is given."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from parviraptor_celery.schedule import beat_schedule


def test_names_tasks_that_exist(celery_in_memory: Celery) -> None:
    assert {entry["task"] for entry in beat_schedule().values()} == {
        "parviraptor_celery.dispatch_jobs",
        "parviraptor_celery.clean_jobs",
    }
    assert {entry["task"] for entry in beat_schedule().values()} <= set(celery_in_memory.tasks)


def test_keeps_the_intervals_of_the_settings(settings: Any) -> None:
    settings.PARVIRAPTOR_CONFIG = {"DISPATCH_INTERVAL_SECONDS": 7, "CLEAN_INTERVAL_SECONDS": 8}
    schedule = {entry["task"]: entry["schedule"] for entry in beat_schedule().values()}
    assert schedule == {"parviraptor_celery.dispatch_jobs": 7, "parviraptor_celery.clean_jobs": 8}


def test_a_tick_expires_when_the_next_one_is_due(settings: Any) -> None:
    for entry in beat_schedule().values():
        assert entry["options"]["expires"] == entry["schedule"]


@pytest.mark.django_db(transaction=True)
def test_the_database_scheduler_takes_it_up(celery_in_memory: Celery) -> None:
    celery_in_memory.conf.beat_schedule = beat_schedule()
    try:
        DatabaseScheduler(app=celery_in_memory, lazy=False)
    finally:
        celery_in_memory.conf.beat_schedule = {}
    stored = set(PeriodicTask.objects.values_list("task", flat=True))
    assert {"parviraptor_celery.dispatch_jobs", "parviraptor_celery.clean_jobs"} <= stored
