"""Which databases hold the rows of a model. Both apps use this module."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings as django_settings
from django.db import connections, router

REMEMBERED_SECONDS = 300.0

_tables: dict[str, tuple[float, frozenset[str]]] = {}


def aliases_holding(model: Any, certain: list[str]) -> list[str]:
    """Return the aliases with a table for ``model``: ``certain`` ones first, then what is found.

    A row may be written to any database by ``using=``, and nobody would come to it again if only
    the router's choice were looked at. With one database this asks nothing.
    """
    known = [alias for alias in certain if router.allow_migrate_model(alias, model)]
    others = (alias for alias in django_settings.DATABASES if alias not in certain)
    return known + [
        alias
        for alias in others
        if router.allow_migrate_model(alias, model) and model._meta.db_table in _tables_in(alias)
    ]


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
