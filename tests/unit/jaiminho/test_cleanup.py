"""Cleaning: only what was sent goes, and only when it is old enough."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from jaiminho_celery import cleanup
from jaiminho_celery.models import Event
from jaiminho_celery.states import EventStatus
from tests.unit.events import statuses

pytestmark = pytest.mark.django_db


def days_ago(days: float) -> Any:
    return timezone.now() - timedelta(days=days)


def sent(days: float) -> Event:
    return Event.objects.create(version=1, status="SENT", sent_at=days_ago(days))


def test_keeps_what_was_sent_for_two_weeks() -> None:
    young, _ = sent(13.9), sent(14.1)
    assert cleanup.clean_all() == 1
    assert list(Event.objects.all()) == [young]


def test_goes_by_the_settings(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"TIME_TO_DELETE": timedelta(hours=12)}
    sent(0.4)
    sent(0.6)
    assert cleanup.clean_all() == 1


def test_goes_by_when_it_was_sent_and_not_by_creation() -> None:
    Event.objects.create(version=1, status="SENT", sent_at=timezone.now(), created_at=days_ago(99))
    assert cleanup.clean_all() == 0


@pytest.mark.parametrize("status", [s for s in EventStatus if s != EventStatus.SENT])
def test_keeps_every_other_state_however_old(status: str) -> None:
    lease = days_ago(99) if status == EventStatus.PUBLISHING else None
    Event.objects.create(
        version=1,
        status=status,
        created_at=days_ago(99),
        modified_at=days_ago(99),
        lease_until=lease,
    )
    assert cleanup.clean_all() == 0
    assert statuses() == [status]


def test_deletes_in_chunks_and_tells_the_total(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"CLEAN_CHUNK_ROWS": 2}
    for _ in range(5):
        sent(15)
    totals: list[int] = []
    assert cleanup.clean("default", totals.append) == 5
    assert totals == [2, 4, 5]
    assert statuses() == []
