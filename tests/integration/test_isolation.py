"""MariaDB and MySQL under REPEATABLE READ, where `check` warns: slower, and still in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connections, transaction

from jaiminho_celery import barriers, registry, sweep
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox_stream
from parviraptor_celery.drains import Budget
from tests.integration.threads import at_once, open_transaction

ON_MARIADB = pytest.mark.parametrize("using", ["mariadb"], indirect=True)

published: list[Any] = []


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start with nothing published; these tests are the relay themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    monkeypatch.setattr(barriers, "PATIENCE_SECONDS", 0.05)
    known = dict(registry._functions)
    published.clear()
    yield
    registry._functions.clear()
    registry._functions.update(known)


@pytest.fixture
def repeatable_read(using: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The alias, whose connections are all at REPEATABLE READ."""
    options = django_settings.DATABASES[using]["OPTIONS"]
    with monkeypatch.context() as patch:
        patch.setitem(options, "isolation_level", "repeatable read")
        connections[using].close()
        yield using
    connections[using].close()


@pytest.fixture
def keyed(repeatable_read: str) -> Callable[[list[Any]], None]:
    """A function whose events keep their order per key, the first item of the payload."""

    @save_to_outbox_stream(
        "keyed",
        "keep-order",
        using=repeatable_read,
        key=lambda payload: payload[0],
        name="tests.isolation",
    )
    def publish(payload: list[Any]) -> None:
        published.append(payload)

    return publish


def relay(using: str) -> int:
    return sweep.relay_here(using, Budget.endless())


@ON_MARIADB
def test_the_tests_themselves_are_at_repeatable_read(repeatable_read: str) -> None:
    with connections[repeatable_read].cursor() as cursor:
        cursor.execute("SELECT @@session.tx_isolation")
        assert cursor.fetchone() == ("REPEATABLE-READ",)


@ON_MARIADB
def test_an_event_that_commits_late_with_a_lower_id_is_not_overtaken(
    repeatable_read: str, keyed: Callable[[list[Any]], None]
) -> None:
    with open_transaction(repeatable_read, lambda: keyed(["a", 1])) as late:
        keyed(["a", 2])
        assert relay(repeatable_read) == 0
        late.committed()
        relay(repeatable_read)
    assert published == [["a", 1], ["a", 2]]


@ON_MARIADB
@pytest.mark.parametrize("neighbours", [("a", "b"), ("b", "a"), ("a", "z"), ("q", "b")])
def test_a_writer_of_another_key_holds_nobody(
    repeatable_read: str, keyed: Callable[[list[Any]], None], neighbours: tuple[str, str]
) -> None:
    open_key, key = neighbours
    with open_transaction(repeatable_read, lambda: keyed([open_key, 1])) as late:
        keyed([key, 1])
        relay(repeatable_read)
        assert published == [[key, 1]]
        late.committed()
    relay(repeatable_read)
    assert published == [[key, 1], [open_key, 1]]


@ON_MARIADB
def test_relays_and_writers_at_once_deliver_each_event_once_and_in_order(
    repeatable_read: str, keyed: Callable[[list[Any]], None]
) -> None:
    def write(key: str) -> int:
        for number in range(40):
            with transaction.atomic(using=repeatable_read):
                keyed([key, number])
                keyed(["shared", key, number])
        return 0

    at_once(
        *[lambda key=key: write(key) for key in "abc"],  # type: ignore[misc]
        *[lambda: relay(repeatable_read)] * 2,
    )
    relay(repeatable_read)

    assert not Event.rows(repeatable_read).unsent().exists()
    for key in "abc":
        assert [n for k, *rest in published if k == key for n in rest] == list(range(40))
        assert [
            n for k, *rest in published if k == "shared" and rest[0] == key for n in rest[1:]
        ] == list(range(40))
