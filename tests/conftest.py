"""Fixtures for all tests: the database of each kind (`using`), the brokers, queue names.

A test that takes `using` runs once per database, with real transactions, and touches that alias
only. Other tests say `@pytest.mark.django_db` and run on SQLite.
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest

# pytest-celery puts a worker in a container under this name; ours runs in a thread.
from celery.contrib.pytest import celery_worker as celery_worker
from django.conf import settings

from parviraptor_celery.pace import Pace
from tests import flushing, servers
from tests.faults.figures import figures as figures
from tests.faults.figures import pytest_terminal_summary as pytest_terminal_summary

# So that what a machine or a checker asserts is told with its values.
RIGS = ("queue_machine", "queue_hands", "outbox_machine", "outbox_hands")
pytest.register_assert_rewrite(*[f"tests.faults.{rig}" for rig in RIGS])

flushing.install()

ALIASES = {"sqlite": "default", "postgresql": "postgresql", "mariadb": "mariadb"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test that takes `using` its one database, before pytest-django sorts them."""
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("using")  # type: ignore[attr-defined]
        if kind is not None and ALIASES[kind] in settings.DATABASES:
            database = pytest.mark.django_db(transaction=True, databases=[ALIASES[kind]])
            item.add_marker(database, append=False)


@pytest.fixture(autouse=True)
def first_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test begins with the batches that another one found right."""
    monkeypatch.setattr(Pace, "_known", {})


@pytest.fixture(params=list(ALIASES))
def using(request: pytest.FixtureRequest) -> str:
    """The alias of a database that the test has to itself: one test per kind of database."""
    kind: str = request.param
    if kind != "sqlite":
        servers.require(kind)
    return ALIASES[kind]


class OneDatabase:
    """Database router of a project that has this one database."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.alias

    db_for_write = db_for_read


@pytest.fixture
def one_database(using: str, settings: Any) -> str:
    """Let `using` be the only database of the project, for those who never name one."""
    settings.DATABASE_ROUTERS = [OneDatabase(using)]
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using]}
    return using


@pytest.fixture
def redis_url() -> str:
    """A Redis-protocol server, shared by the whole run: use `queue_name`, don't flush."""
    return servers.require("redis")


@pytest.fixture
def rabbitmq_url() -> str:
    """A RabbitMQ, perhaps shared with others: use `queue_name` and delete the queue."""
    return servers.require("rabbitmq")


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each kind of broker in turn."""
    return servers.require(request.param)


@pytest.fixture
def queue_name() -> str:
    """A name that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"
