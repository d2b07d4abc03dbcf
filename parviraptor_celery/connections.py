"""What can be known to be wrong with the databases. Both apps use this module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections


def connection_problems(app: str) -> Iterator[CheckMessage]:
    """Yield what is wrong with the databases and Celery's use of them; both apps ask this."""
    for alias, configured in django_settings.DATABASES.items():
        options = configured.get("OPTIONS") or {}
        zone = configured.get("TIME_ZONE")
        if zone not in (None, "UTC") and not connections[alias].features.supports_timezones:
            yield Error(
                f"Database {alias!r} keeps its times in {zone}: due times, which are compared "
                "with the database's own time in UTC, would be off by hours.",
                hint="Remove TIME_ZONE from this entry of DATABASES, and convert the times that "
                "it has.",
                id=f"{app}.E017",
            )
        match connections[alias].vendor:
            case "sqlite" if options.get("transaction_mode", "").upper() != "IMMEDIATE":
                yield Warning(
                    f"SQLite database {alias!r}: two processes that read and then write fail "
                    'with "database is locked".',
                    hint='Set OPTIONS = {"transaction_mode": "IMMEDIATE", "timeout": 20, '
                    '"init_command": "PRAGMA journal_mode=WAL;"}.',
                    id=f"{app}.W001",
                )
            case "mysql" if _isolation_level(options) != "read committed":
                yield Warning(
                    f"Database {alias!r} runs at {_isolation_level(options)!r}, where looking "
                    "for the next row blocks those who write one.",
                    hint="Leave OPTIONS['isolation_level'] at Django's default, read committed.",
                    id=f"{app}.W002",
                )
    if not hasattr(django_settings, "CELERY_DB_REUSE_MAX"):
        yield Warning(
            "Celery closes the database connection before and after every task, whatever "
            "CONN_MAX_AGE says.",
            hint="Set CELERY_DB_REUSE_MAX = 1000 (tasks per connection) in Django's settings.",
            id=f"{app}.W003",
        )


def _isolation_level(options: dict[str, Any]) -> str:
    """Return the level that Django asks for; None leaves it to the server."""
    level = options.get("isolation_level", "read committed")
    return str(level).lower() if level else "the server's default, mostly repeatable read"
