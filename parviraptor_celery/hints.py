"""Which index MySQL and MariaDB must not use, where they are wrong about it."""

from __future__ import annotations

from typing import Any

from django.db.models.sql.datastructures import BaseTable

NOT_BY_PRIMARY_KEY = " IGNORE INDEX (PRIMARY)"


def avoid_primary_key(query: Any) -> None:
    """Let ``query`` not walk its table by the primary key."""
    alias = query.get_initial_alias()
    query.alias_map[alias] = _NotByPrimaryKey(query.alias_map[alias].table_name, alias)


class _NotByPrimaryKey(BaseTable):
    """A table that MySQL and MariaDB must not walk by its primary key.

    Of `lane = x ORDER BY id` they may think that it is cheaper, and read every row.
    """

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        sql, params = super().as_sql(compiler, connection)
        return f"{sql}{NOT_BY_PRIMARY_KEY}", params
