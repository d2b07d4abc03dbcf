"""The servers of a run: those that variables name, else private ones, as for the tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.servers import POSTGRESQL, RABBITMQ, REDIS, Kind, Server
from tests.supervision import embedded, processes

KINDS = {"postgresql": POSTGRESQL, "redis": REDIS, "rabbitmq": RABBITMQ}


def find(supervisor: processes.Supervisor, directory: Path) -> dict[str, Server]:
    """Return each server's URL, or the reason why there is none.

    POSTGRESQL_URL, REDIS_URL and RABBITMQ_URL are used where they are set (to nothing: do without).
    Otherwise PostgreSQL and Valkey are started, and RabbitMQ is used where it usually listens.
    """
    starts: dict[str, Callable[[Path], str]] = {
        "postgresql": lambda place: embedded.start_postgresql(supervisor, place),
        "redis": lambda place: embedded.start_valkey(supervisor, place),
        "rabbitmq": lambda _: RABBITMQ.example,
    }
    return {name: _find(KINDS[name], directory / name, start) for name, start in starts.items()}


def _find(kind: Kind, place: Path, start: Callable[[Path], str]) -> Server:
    named = os.environ.get(kind.variable)
    if named == "":
        return kind.missing(f"{kind.variable} is set to nothing")
    try:
        place.mkdir()
        url = named or start(place)
        kind.check(url)
    except Exception as error:  # whatever is wrong with it, what needs it is left out and says so
        return kind.missing(f"{type(error).__name__}: {error}".partition("\n")[0])
    return Server(kind.title, url, origin=f"named by {kind.variable}" if named else url)
