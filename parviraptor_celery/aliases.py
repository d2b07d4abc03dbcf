"""Which databases hold the rows of a model. Both apps use this module."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings as django_settings
from django.db import connections, router

REMEMBERED_SECONDS = 300.0

_tables: dict[str, tuple[float, frozenset[str]]] = {}
_looked: dict[tuple[str, str], tuple[float, bool]] = {}


def aliases_holding(model: Any, certain: list[str]) -> list[str]:
    """Return the aliases with a table for ``model``: ``certain`` ones first, then what is found.

    A row may be written to any database by ``using=``, and nobody would come to it again if only
    the router's choice were looked at. With one database this asks nothing. A second name for
    the same database, and the mirror of another, are left out.
    """
    found = [alias for alias in certain if router.allow_migrate_model(alias, model)]
    places = {_place(alias) for alias in found}
    for alias in django_settings.DATABASES:
        if _place(alias) in places or _is_mirror(alias):
            continue
        if router.allow_migrate_model(alias, model) and model._meta.db_table in _tables_in(alias):
            found.append(alias)
            places.add(_place(alias))
    return found


def has_table(model: Any, alias: str) -> bool:
    """Return whether ``alias`` has the table of ``model``, whatever the routers say.

    A yes is remembered for as long as the process lives, a no for ``REMEMBERED_SECONDS``.
    """
    about = alias, model._meta.db_table
    seen_at, is_there = _looked.get(about, (0.0, False))
    if is_there or (seen_at and time.monotonic() - seen_at < REMEMBERED_SECONDS):
        return is_there
    connection = connections[alias]
    with connection.cursor() as cursor:
        is_there = model._meta.db_table in connection.introspection.table_names(cursor)
    _looked[about] = time.monotonic(), is_there
    return is_there


def look_again() -> None:
    """Forget which tables are where: one was created a moment ago."""
    _tables.clear()
    _looked.clear()


def _place(alias: str) -> tuple[str, ...]:
    """Return which database an alias names (and in PostgreSQL, by its search path, which part)."""
    given = django_settings.DATABASES.get(alias) or {"NAME": alias}
    options = (given.get("OPTIONS") or {}).get("options", "")
    named = (given.get(key) or "" for key in ("ENGINE", "HOST", "PORT", "NAME"))
    return tuple(map(str, (*named, options)))


def _is_mirror(alias: str) -> bool:
    test = django_settings.DATABASES[alias].get("TEST") or {}
    return bool(test.get("MIRROR"))


def _tables_in(alias: str) -> frozenset[str]:
    seen_at, tables = _tables.get(alias, (0.0, frozenset[str]()))
    if tables and time.monotonic() - seen_at < REMEMBERED_SECONDS:
        return tables
    connection = connections[alias]
    try:
        with connection.cursor() as cursor:
            tables = frozenset(connection.introspection.table_names(cursor))
    except Exception:
        return frozenset()  # that database is away: asked again next time
    _tables[alias] = time.monotonic(), tables
    return tables
