"""System checks: what can be known to be wrong before the first event is."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register

from parviraptor_celery.connections import connection_problems

from . import registry
from .conf import settings


@register("jaiminho_celery")
def check_settings(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = [
        Error(problem, id="jaiminho_celery.E001") for problem in settings.problems()
    ]
    if not django_settings.USE_TZ:
        found.append(
            Error(
                "Leases and due times need time zone support.",
                hint="Set USE_TZ = True.",
                id="jaiminho_celery.E002",
            )
        )
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
