"""What these tests share."""

from __future__ import annotations

from typing import Any

from django.db import connections

Kicks = list[tuple[str, dict[str, Any]]]


class WritesTo:
    """A database router that sends everything, or one app, to one database."""

    def __init__(self, alias: str, app: str | None = None) -> None:
        self.alias, self.app = alias, app

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        return self.alias if self.app in (None, model._meta.app_label) else None

    db_for_read = db_for_write

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        return None if self.app is None else (db == self.alias) == (app_label == self.app)


def rename(using: str, table: str, to: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {to}")


def lanes_of(kicked: Kicks) -> set[str]:
    return {lane for _, about in kicked for lane in about.get("lanes") or ()}
