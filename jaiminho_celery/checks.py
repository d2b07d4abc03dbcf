"""System checks: what can be known to be wrong before the first event is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections

from parviraptor_celery.conf import settings as queue_settings
from parviraptor_celery.connections import connection_problems
from parviraptor_celery.settings_checks import key_problems, lease_problems, time_zone_problems

from . import registry
from .conf import settings
from .models import Event

APP = "jaiminho_celery"


@register("jaiminho_celery")
def check_settings(**_: Any) -> list[CheckMessage]:
    """Look at each key, then at what the keys say together."""
    found = [*key_problems(settings, APP), *time_zone_problems(APP)]
    if not apps.is_installed("parviraptor_celery"):
        found += key_problems(queue_settings, "parviraptor_celery")  # the outbox uses some of it
    if not any(settings.problems()):
        found += lease_problems(settings.setting_name, settings.LEASE_SECONDS, APP)
        found += _contradictions()
    return found


@register("jaiminho_celery")
def check_connections(**_: Any) -> list[CheckMessage]:
    """Look at the databases, unless the job queues are installed and do so already."""
    if apps.is_installed("parviraptor_celery"):
        return []
    return list(connection_problems("jaiminho_celery"))


@register("jaiminho_celery")
def check_functions(**_: Any) -> list[CheckMessage]:
    """Decorators may run before the settings are there, so their aliases are looked at here."""
    return [
        Error(
            f"{function.name} writes its events to {function.using!r}, which DATABASES lacks.",
            id="jaiminho_celery.E003",
        )
        for function in registry.all_functions()
        if function.using is not None and function.using not in django_settings.DATABASES
    ]


@register(Tags.database)
def check_unsigned_events(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Count what was written unsigned, for the second step of switching signing on.

    Only where it is asked for (``manage.py check --database default``), and by ``migrate``.
    """
    if any(settings.problems()) or not settings.SIGN_EVENTS:
        return []
    counted = {using: _count_unsigned(using) for using in databases or ()}
    return [_unsigned(using, count) for using, count in counted.items() if count]


def _count_unsigned(using: str) -> int:
    connection = connections[using]
    with connection.cursor() as cursor:
        if Event._meta.db_table not in connection.introspection.table_names(cursor):
            return 0  # not migrated yet, or kept in another database
    return Event.rows(using).unsigned().count()


def _unsigned(using: str, count: int) -> CheckMessage:
    if settings.VERIFY_EVENTS_SIGNATURE:
        fate = "each becomes a dead letter when its turn comes"
        hint = "Set VERIFY_EVENTS_SIGNATURE to False until they are published."
    else:
        fate = "it is too early for VERIFY_EVENTS_SIGNATURE = True"
        hint = "Wait until the relay has published them, then set VERIFY_EVENTS_SIGNATURE to True."
    message = f"{count} unsigned events wait in {using!r}: {fate}."
    return Warning(message, hint=hint, id="jaiminho_celery.W301")


def _contradictions() -> Iterator[CheckMessage]:
    if settings.VERIFY_EVENTS_SIGNATURE and not settings.SIGN_EVENTS:
        yield Error(
            "New events are not signed, yet only signed ones are run: each would become a dead "
            "letter as soon as it is published.",
            hint="Set SIGN_EVENTS to True. Where unsigned events wait, take two steps: first "
            "SIGN_EVENTS = True with VERIFY_EVENTS_SIGNATURE = False, in every process; "
            "VERIFY_EVENTS_SIGNATURE = True once no unsigned event waits.",
            id="jaiminho_celery.E201",
        )
    if Exception in settings.non_retryable():
        yield Warning(
            "NON_RETRYABLE_EXCEPTIONS holds Exception: every failure makes a dead letter, a "
            "broken connection too, and nothing is ever tried again.",
            hint="Name the exceptions that a second try can't mend, for example "
            "'django.core.exceptions.ValidationError'.",
            id="jaiminho_celery.W202",
        )
    if settings.BACKOFF_CAP_SECONDS < settings.BACKOFF_BASE_SECONDS:
        yield Warning(
            f"BACKOFF_CAP_SECONDS ({settings.BACKOFF_CAP_SECONDS:g}) is below "
            f"BACKOFF_BASE_SECONDS ({settings.BACKOFF_BASE_SECONDS:g}): the pauses never grow.",
            hint="Set the cap to several times the base.",
            id="jaiminho_celery.W204",
        )
