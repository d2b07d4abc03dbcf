"""A database of the run's own on the server that there is, and ways to disturb its clients."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import dj_database_url
from django.db import connection

POSTGRESQL_CLIENTS = """
    SELECT pid, client_port FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND client_port > 0"""
MARIADB_CLIENTS = """
    SELECT id, SUBSTRING_INDEX(host, ':', -1) FROM information_schema.processlist
    WHERE db = DATABASE() AND id <> CONNECTION_ID()"""


@contextlib.contextmanager
def own_database(kind: str, url: str) -> Iterator[dict[str, Any]]:
    """Create a database on the server at ``url``, yield its Django settings, and drop it."""
    name = f"soak_{uuid.uuid4().hex[:12]}"
    _on_the_server(url, f"CREATE DATABASE {name}")
    try:
        yield {**dj_database_url.parse(url), "NAME": name, "CONN_MAX_AGE": 600, **_options(kind)}
    finally:
        force = " WITH (FORCE)" if kind == "postgresql" else ""
        _on_the_server(url, f"DROP DATABASE {name}{force}")


def clients() -> dict[int, int]:
    """Return the number of each other connection to this database, by its TCP port."""
    query = POSTGRESQL_CLIENTS if connection.vendor == "postgresql" else MARIADB_CLIENTS
    with connection.cursor() as cursor:
        cursor.execute(query)
        return {int(port): number for number, port in cursor.fetchall()}


def terminate(number: int) -> None:
    """End another connection, whatever it does just now; nothing if it is gone."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_terminate_backend(%s)", [number])
        else:
            with contextlib.suppress(Exception):  # MariaDB raises when it is gone already
                cursor.execute(f"KILL {int(number)}")


def _options(kind: str) -> dict[str, Any]:
    if kind == "mariadb":
        return {"OPTIONS": {"isolation_level": "read committed", "charset": "utf8mb4"}}
    return {}


def _on_the_server(url: str, statement: str) -> None:
    parts = dj_database_url.parse(url)
    where = {key.lower(): parts[key] for key in ("HOST", "USER", "PASSWORD") if parts.get(key)}  # type: ignore[literal-required]
    if parts["ENGINE"].endswith("postgresql"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as server:
            server.execute(statement)
    else:
        import MySQLdb

        server = MySQLdb.connect(**where, port=int(parts["PORT"] or 3306))
        with contextlib.closing(server):
            server.cursor().execute(statement)
