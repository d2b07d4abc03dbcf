"""Cleaning: only processed jobs go, and only when they are too old."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from parviraptor_celery import cleanup
from tests.testapp.models import FifoJob, FreeJob
from tests.unit.jobs import statuses

pytestmark = pytest.mark.django_db


def days_ago(days: float) -> Any:
    return timezone.now() - timedelta(days=days)


def processed(days: float) -> FreeJob:
    return FreeJob.objects.create(status="PROCESSED", modification_date=days_ago(days))


def test_goes_by_the_age_of_the_queue() -> None:
    young, old = processed(6.9), processed(7.1)
    assert cleanup.count_old(FreeJob, "default") == 1
    assert cleanup.clean(FreeJob, "default") == 1
    assert list(FreeJob.objects.values_list("pk", flat=True)) == [young.pk]
    assert old.pk != young.pk


def test_goes_by_the_last_transition_and_not_by_creation() -> None:
    FreeJob.objects.create(status="PROCESSED", creation_date=days_ago(100))
    assert cleanup.clean(FreeJob, "default") == 0


@pytest.mark.parametrize("status", ["NEW", "SQUASHED", "FAILED", "IGNORED", "DEFERRED"])
def test_keeps_every_other_state_however_old(status: str) -> None:
    FreeJob.objects.create(status=status, modification_date=days_ago(100))
    assert cleanup.clean(FreeJob, "default") == 0
    assert statuses(FreeJob) == [status]


def test_none_keeps_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreeJob, "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", None)
    processed(10_000)
    assert cleanup.clean(FreeJob, "default") == 0
    assert cleanup.count_old(FreeJob, "default") == 0


def test_fractions_of_a_day_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreeJob, "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", 0.5)
    processed(0.4)
    processed(0.6)
    assert cleanup.clean(FreeJob, "default") == 1


def test_deletes_in_chunks_and_tells_the_total(settings: Any) -> None:
    settings.PARVIRAPTOR_CONFIG = {"CLEAN_CHUNK_ROWS": 2}
    for _ in range(5):
        processed(8)
    totals: list[int] = []
    assert cleanup.clean(FreeJob, "default", totals.append) == 5
    assert totals == [2, 4, 5]
    assert statuses(FreeJob) == []


def test_cleans_every_queue() -> None:
    processed(8)
    FifoJob.objects.create(status="PROCESSED", modification_date=days_ago(8))
    assert cleanup.clean_all() == 2
