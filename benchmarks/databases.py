"""A fresh database for each measurement, on the one PostgreSQL of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo


class Databases:
    """Creates databases named after the run, and drops them in the end.

    What takes long to build is built once, as a template of which every measurement gets a copy.
    """

    def __init__(self, url: str, run: str) -> None:
        self.url = url
        self._run = run
        self._templates: dict[str, str] = {}

    def conninfo(self, name: str) -> str:
        return make_conninfo(self.url, dbname=name)

    def template(self, key: str, build: Callable[[str], None], base: str | None = None) -> str:
        """Return the database `key`, which `build`, given its conninfo, fills the first time."""
        if key not in self._templates:
            name = f"{self._run}_template_{len(self._templates)}"
            self._create(name, base)
            build(self.conninfo(name))
            self.vacuum(self.conninfo(name))
            self._templates[key] = name
        return self._templates[key]

    @contextmanager
    def fresh(self, template: str) -> Iterator[str]:
        """Yield the conninfo of a copy of `template`, which is dropped afterwards."""
        name = f"{self._run}_measured"
        self._create(name, template)
        try:
            yield self.conninfo(name)
        finally:
            self._drop(name)

    def vacuum(self, conninfo: str) -> None:
        """Do what autovacuum would sooner or later do after many rows came."""
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")

    def facts(self) -> dict[str, str]:
        """Return what about the server decides how dear a commit is."""
        with self._server() as connection:
            return {
                setting: connection.execute(f"SHOW {setting}").fetchone()[0]  # type: ignore[index]
                for setting in ("server_version", "fsync", "synchronous_commit", "shared_buffers")
            }

    def close(self) -> None:
        for name in [*self._templates.values(), f"{self._run}_measured"]:
            self._drop(name)

    def _create(self, name: str, template: str | None) -> None:
        self._drop(name)
        statement = "CREATE DATABASE {} TEMPLATE {}"
        self._run_sql(statement, name, template or "template1")

    def _drop(self, name: str) -> None:
        self._run_sql("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _run_sql(self, statement: str, *names: str) -> None:
        with self._server() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _server(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)
