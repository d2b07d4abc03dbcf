"""pytest plugin: finds or starts the servers before Django reads tests.settings.

What a variable (POSTGRESQL_URL, REDIS_URL, MARIADB_URL, RABBITMQ_URL) names is used and must
answer; set to nothing, it says to do without. Otherwise PostgreSQL and Valkey are started, private
to this run, and MariaDB and RabbitMQ are used where they answer at their usual address. Whatever is
missing makes the tests that need it skip and say why, or fail under REQUIRE_SERVICES=1.

tests.settings and the processes that tests start learn the result from the variable TESTS_SERVERS.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.supervision import embedded, processes

FOUND_VARIABLE = "TESTS_SERVERS"
DIRECTORY_VARIABLE = "TESTS_DIRECTORY"
CONNECT_SECONDS = 3


@dataclass(frozen=True)
class Server:
    """What came of the search for one server: a URL, or the reason why there is none."""

    title: str
    url: str = ""
    reason: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of server: the variable that names one, an example of it, how to try one."""

    title: str
    variable: str
    example: str
    check: Callable[[str], None]

    def missing(self, why: str) -> Server:
        hint = f"Set {self.variable} to use one, e.g. {self.example}"
        return Server(self.title, reason=f"no {self.title} ({why}). {hint}")


def known() -> dict[str, Server]:
    """Return what was found, by name; empty outside of a test run (manage.py, mypy)."""
    found = json.loads(os.environ.get(FOUND_VARIABLE, "{}"))
    return {name: Server(**server) for name, server in found.items()}


def directory() -> Path:
    """Return where files of this run go; it is removed in the end."""
    return Path(os.environ.get(DIRECTORY_VARIABLE, tempfile.gettempdir()))


def require(name: str) -> str:
    """Return the server's URL; without one skip the test, or fail it under REQUIRE_SERVICES=1."""
    server = known().get(name, Server(name, reason=f"{name} is not one of the tests' servers."))
    if not server.url:
        give_up(server.reason)
    return server.url


def give_up(reason: str) -> NoReturn:
    """Skip the test for want of a server, or fail it under REQUIRE_SERVICES=1."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Start before pytest-django loads the settings: a wrapper runs before every plain hook."""
    if FOUND_VARIABLE not in os.environ:  # there already in a worker of pytest-xdist
        _start(early_config)
    yield


def pytest_report_header() -> list[str]:
    return [
        f"{server.title}: {server.origin or server.reason}" for _, server in sorted(known().items())
    ]


def _start(config: pytest.Config) -> None:
    supervisor = processes.Supervisor()
    run_directory = Path(tempfile.mkdtemp(prefix="jaiminho-tests-"))

    def stop() -> None:
        supervisor.stop()
        shutil.rmtree(run_directory, ignore_errors=True)
        os.environ.pop(FOUND_VARIABLE, None)
        os.environ.pop(DIRECTORY_VARIABLE, None)

    config.add_cleanup(stop)
    found = {name: find(name, supervisor, run_directory) for name in KINDS}
    os.environ[DIRECTORY_VARIABLE] = str(run_directory)
    os.environ[FOUND_VARIABLE] = json.dumps({name: asdict(found[name]) for name in found})


def find(name: str, supervisor: processes.Supervisor, directory: Path) -> Server:
    """Look for a server by its name, or start a private one with its files in ``directory``."""
    kind = KINDS[name]
    start = {"postgresql": embedded.start_postgresql, "redis": embedded.start_valkey}.get(name)
    if start is None:
        return _usual(kind)
    return _private(kind, lambda: start(supervisor, _subdirectory(directory, name)))


def _private(kind: Kind, start: Callable[[], str]) -> Server:
    """Return the server that the variable names, else a new one."""
    if kind.variable in os.environ:
        return _named(kind)
    try:
        url = start()
        kind.check(url)
    except Exception as error:  # whatever is wrong with it, the tests that need it have to tell
        return kind.missing(f"none could be started: {_in_words(error)}")
    return Server(kind.title, url, origin=f"started for this run, {url}")


def _usual(kind: Kind) -> Server:
    """Return the server that the variable names, else the one at its usual address, if any."""
    if kind.variable in os.environ:
        return _named(kind)
    try:
        kind.check(kind.example)
    except Exception as error:  # nobody promised that there is one
        return kind.missing(f"{kind.example} does not answer: {_in_words(error)}")
    return Server(kind.title, kind.example, origin=f"found at {kind.example}")


def _named(kind: Kind) -> Server:
    url = os.environ[kind.variable]
    if not url:
        return kind.missing(f"{kind.variable} is set to nothing")
    try:
        kind.check(url)
    except Exception as error:
        raise pytest.UsageError(
            f"{kind.variable} names a {kind.title} that cannot be used: {_in_words(error)}."
            f" Correct or unset {kind.variable}."
        ) from error
    return Server(kind.title, url, origin=f"named by {kind.variable}")


def _check_postgresql(url: str) -> None:
    import psycopg

    psycopg.connect(url, connect_timeout=CONNECT_SECONDS).close()


def _check_mariadb(url: str) -> None:
    import MySQLdb

    MySQLdb.connect(**_mysql_arguments(url), connect_timeout=CONNECT_SECONDS).close()


def _check_redis(url: str) -> None:
    import redis

    with redis.Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS) as client:
        client.ping()


def _check_rabbitmq(url: str) -> None:
    import kombu

    with kombu.Connection(url, connect_timeout=CONNECT_SECONDS) as connection:
        connection.connect()


def _mysql_arguments(url: str) -> dict[str, Any]:
    import dj_database_url

    parts = dj_database_url.parse(url)
    return {
        "host": parts["HOST"] or "127.0.0.1",
        "port": int(parts["PORT"] or 3306),
        "user": parts["USER"],
        "password": parts["PASSWORD"],
        "database": parts["NAME"],
    }


def _subdirectory(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir()
    return path


def _in_words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


POSTGRESQL = Kind(
    "PostgreSQL",
    "POSTGRESQL_URL",
    "postgres://user:password@127.0.0.1:5432/database",
    _check_postgresql,
)
REDIS = Kind("Redis", "REDIS_URL", "redis://127.0.0.1:6379/0", _check_redis)
MARIADB = Kind("MariaDB", "MARIADB_URL", "mysql://root@127.0.0.1:3306/test", _check_mariadb)
RABBITMQ = Kind("RabbitMQ", "RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//", _check_rabbitmq)
KINDS = {"postgresql": POSTGRESQL, "redis": REDIS, "mariadb": MARIADB, "rabbitmq": RABBITMQ}
