"""What is run around every row is planned once in a session, where the session is our own."""

from __future__ import annotations

import gc
import tempfile
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import NotSupportedError, ProgrammingError, connections
from django.test.utils import CaptureQueriesContext

from parviraptor_celery import dispatch, sessions
from parviraptor_celery.database import alone, is_refusal, is_transient
from parviraptor_celery.drains import Budget
from tests import servers
from tests.integration.threads import at_once
from tests.pgbouncer import start_pgbouncer
from tests.supervision import embedded, processes
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, Note

ENOUGH = sessions.PLAIN_STATEMENTS + 2 * sessions.REPETITIONS

pytestmark = pytest.mark.parametrize("using", ["postgresql"], indirect=True)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves, and forget what earlier ones found."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    monkeypatch.setattr(sessions, "_pooled", set())


@pytest.fixture
def fresh(using: str) -> Iterator[str]:
    """The alias, with new sessions before and after."""
    connections[using].close()
    yield using
    connections[using].close()


@pytest.fixture
def options(using: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The alias' OPTIONS, to be changed; new sessions follow them."""
    changed = dict(django_settings.DATABASES[using]["OPTIONS"])
    with monkeypatch.context() as patch:
        patch.setitem(connections[using].settings_dict, "OPTIONS", changed)
        connections[using].close()
        yield changed
    connections[using].close()


def run(queue: Any, using: str, count: int = ENOUGH) -> int:
    """Enqueue so many jobs and run them; return how many ran."""
    queue.enqueue_many([queue() for _ in range(count)], using=using)
    if queue.dependent_fields is None:
        return dispatch.run_pool(queue, using, Budget.endless()).rows
    lane = queue.rows(using).values_list("lane", flat=True).first()
    return dispatch.run_lanes(queue, using, [lane], Budget.endless()).rows


def prepared(using: str) -> list[str]:
    """Return the statements that this session has prepared."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [row[0] for row in cursor.fetchall()]


def prepares(using: str) -> bool:
    """Return whether the library prepares its statements in this session."""
    session = sessions._session_of(connections[using])
    return session is not None and session.may_prepare


def processed(queue: Any, using: str) -> int:
    return int(queue.rows(using).filter(status="PROCESSED").count())


@pytest.mark.parametrize("queue", [FifoJob, FreeJob])
def test_with_the_default_options_the_hand_off_is_prepared(fresh: str, queue: Any) -> None:
    assert run(queue, fresh) == ENOUGH
    assert any("WITH finished" in statement for statement in prepared(fresh))


def test_queries_of_the_project_are_not(fresh: str) -> None:
    run(FifoJob, fresh)
    for _ in range(ENOUGH):
        assert not Note.objects.using(fresh).filter(text="none").exists()
    assert not any("testapp_note" in statement for statement in prepared(fresh))
    assert len(prepared(fresh)) <= 4


def test_a_session_that_runs_few_statements_is_not_asked(fresh: str) -> None:
    run(FifoJob, fresh, 2)
    assert not prepares(fresh)


def test_nothing_is_prepared_when_that_is_switched_off(fresh: str, settings: Any) -> None:
    settings.PARVIRAPTOR_CONFIG = {"PREPARE_STATEMENTS": False}
    assert run(FifoJob, fresh) == ENOUGH
    assert prepared(fresh) == []


def test_what_is_logged_is_written_out(fresh: str) -> None:
    run(FifoJob, fresh)
    with CaptureQueriesContext(connections[fresh]) as queries:
        run(FifoJob, fresh)
    assert any("WITH finished" in query["sql"] for query in queries)


def test_nothing_is_prepared_where_the_project_binds_on_the_server(
    options: dict[str, Any], using: str
) -> None:
    options["server_side_binding"] = True
    assert run(FifoJob, using) == ENOUGH
    assert prepared(using) == []


def test_what_the_project_prepares_itself_stays_as_it_is(
    options: dict[str, Any], using: str
) -> None:
    options |= {"server_side_binding": True, "prepare_threshold": 1}
    assert run(FifoJob, using) == ENOUGH
    assert connections[using].connection.prepare_threshold == 1
    assert any("WITH finished" in statement for statement in prepared(using))


@contextmanager
def migrated(queue: Any, using: str) -> Iterator[None]:
    """Let a column have another type inside of the block, by another session's doing."""

    def alter(to: str) -> None:
        with connections[using].cursor() as cursor:
            cursor.execute(f"ALTER TABLE {queue._meta.db_table} ALTER COLUMN result TYPE {to}")

    at_once(lambda: alter("bigint"))
    try:
        yield
    finally:
        at_once(lambda: alter("integer"))


@pytest.mark.parametrize("queue", [FifoJob, FreeJob, AtomicJob])
def test_a_migration_meanwhile_fails_no_job(fresh: str, queue: Any) -> None:
    """What is prepared would give a column of another type, and PostgreSQL refuses that."""
    run(queue, fresh)
    with migrated(queue, fresh):
        assert run(queue, fresh) == ENOUGH
        assert processed(queue, fresh) == 2 * ENOUGH


def test_after_a_migration_the_head_of_a_lane_can_still_be_read(fresh: str) -> None:
    job = FifoJob.enqueue(using=fresh)
    rows = FifoJob.rows(fresh)

    def look() -> Any:
        return alone(fresh, lambda: rows.candidate(job.lane, "NEW"))

    assert [look().pk for _ in range(ENOUGH)] == [job.pk] * ENOUGH
    assert any("is_due" in statement for statement in prepared(fresh))
    with migrated(FifoJob, fresh):
        with pytest.raises(NotSupportedError) as stale:
            rows.candidate(job.lane, "NEW")
        assert is_transient(stale.value)
        assert not is_refusal(stale.value), "it is about no row"
        assert look().pk == job.pk


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = connections["postgresql"].settings_dict
    with processes.Supervisor() as supervisor, tempfile.TemporaryDirectory() as directory:
        try:
            yield start_pgbouncer(supervisor, Path(directory), server, sessions=2)
        except embedded.MissingServer as error:
            servers.give_up(str(error))


def test_a_backend_with_cursors_of_its_own_is_asked_for_each(
    fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that sets the schema of a tenant before a statement."""
    connection: Any = connections[fresh]

    class Tenants(type(connection)):  # type: ignore[misc]
        def _cursor(self, name: Any = None) -> Any:
            return super()._cursor(name)

    monkeypatch.setattr(connection, "__class__", Tenants)
    assert run(FifoJob, fresh) == ENOUGH
    assert not prepares(fresh)


def test_a_tool_that_looks_on_sees_every_cursor(
    fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(FifoJob, fresh) == ENOUGH
    assert prepares(fresh)
    connection, seen = connections[fresh], list[Any]()
    make = connection.cursor
    with monkeypatch.context() as patch:
        patch.setattr(connection, "cursor", lambda: seen.append(make()) or seen[-1])
        FifoJob.enqueue(using=fresh)
    assert seen.pop()
    monkeypatch.setattr(connection, "cursor", make)  # put back, as Django's test cases do it
    assert sessions._session_of(connection).prepares(connection)  # type: ignore[union-attr]


def test_a_thread_that_ends_lets_its_session_go(fresh: str) -> None:
    """Nobody closed it: the garbage collector does, unless the library holds on to it."""
    left: list[Any] = []

    def enqueue() -> None:
        run(FifoJob, fresh)
        assert prepares(fresh)
        left.append(weakref.ref(connections[fresh].connection))

    thread = threading.Thread(target=enqueue)
    thread.start()
    thread.join()
    del thread
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of psycopg: that is how it was closed
        gc.collect()
    assert [session() for session in left] == [None]


def test_who_enqueues_behind_an_unnoticed_pooler_is_told_once(fresh: str) -> None:
    for _ in range(ENOUGH):
        FifoJob.enqueue(using=fresh)
    connections[fresh].connection.pgconn.exec_(b"DEALLOCATE ALL")  # as in another session
    with pytest.raises(ProgrammingError, match="does not exist") as lost:
        FifoJob.enqueue(using=fresh)
    assert is_transient(lost.value)
    assert not is_refusal(lost.value), "it is about no row"
    assert sessions._pooled == {fresh}
    assert FifoJob.enqueue(using=fresh).pk


class TestBehindAPooler:
    @pytest.fixture
    def pooled(self, using: str, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """The alias, whose connections go by a PgBouncer in transaction mode."""
        with monkeypatch.context() as patch:
            for name, value in {"HOST": "127.0.0.1", "PORT": port}.items():
                patch.setitem(django_settings.DATABASES[using], name, value)
                patch.setitem(connections[using].settings_dict, name, value)
            connections[using].close()
            yield using
            connections[using].close()

    def test_nothing_is_prepared(self, pooled: str) -> None:
        assert run(FifoJob, pooled) == ENOUGH
        assert not prepares(pooled)
        assert prepared(pooled) == []

    def test_an_unnoticed_one_costs_a_repetition_and_fails_no_job(
        self,
        pooled: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(sessions, "_is_the_servers_own", lambda _: True)
        ran: list[int] = at_once(*[lambda: run(FreeJob, pooled)] * 4)
        assert sum(ran) == 4 * ENOUGH == processed(FreeJob, pooled)
        assert "a pooler seems to change the session" in caplog.text
        assert sessions._pooled == {pooled}
