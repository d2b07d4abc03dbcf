"""What these tests share."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any
from unittest import mock

from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone

from jaiminho_celery.models import Event

done: list[Any] = []


class Crash(BaseException):
    """The process dies here."""


def relay(using: str) -> None:
    noted = mock.patch("jaiminho_celery.sweep.note_command")  # which is in another database
    with override_settings(JAIMINHO_CONFIG={"DATABASES": [using]}), noted:
        call_command("events_relay", stdout=StringIO())


def let_leases_run_out(using: str) -> None:
    past = timezone.now() - timedelta(minutes=1)
    Event.objects.using(using).exclude(lease_until=None).update(lease_until=past)
