"""Empties the tables after a test in a tenth of the time that Django's `flush` takes.

Django truncates all of some fifty tables, and then makes every content type and permission anew.
Here only tables that hold rows are emptied, and what migrations have made stays.
"""

from __future__ import annotations

from typing import Any

from django.core.management.commands import flush

MADE_BY_MIGRATIONS = {"django_content_type", "auth_permission", "django_migrations"}


def install() -> None:
    """Let every `flush` of this process be a quick one."""
    flush.sql_flush = empty_tables  # type: ignore[assignment]


def empty_tables(style: Any, connection: Any, **_: Any) -> list[str]:
    """Empty the tables; return no statements, so that `flush` has nothing more to do."""
    if filled := _tables_with_rows(connection):
        cascades = connection.vendor == "postgresql"  # TRUNCATE wants to hear it, DELETE doesn't
        statements = connection.ops.sql_flush(style, filled, allow_cascade=cascades)
        connection.ops.execute_sql_flush(statements)
    return []


def _tables_with_rows(connection: Any) -> list[str]:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    looks = [
        f"SELECT * FROM (SELECT '{table}' FROM {connection.ops.quote_name(table)} LIMIT 1) AS t{n}"
        for n, table in enumerate(sorted(set(tables) - MADE_BY_MIGRATIONS))
    ]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(looks))
        return [name for (name,) in cursor.fetchall()]
