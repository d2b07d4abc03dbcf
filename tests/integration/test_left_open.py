"""Transactions that bodies and functions leave open: what was undone is not said to be done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import timezone

from jaiminho_celery import registry, send
from jaiminho_celery import sweep as relay
from jaiminho_celery.models import Event
from parviraptor_celery import broker
from parviraptor_celery.drains import Budget
from parviraptor_celery.exceptions import TemporaryJobFailure
from parviraptor_celery.left_open import open_transactions, undo_left_open
from tests import servers
from tests.integration.working_off import enqueue, statuses, work_off
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, Note

blocks = ExitStack()


def autocommit_off(using: str) -> None:
    connections[using].set_autocommit(False)


def begin_by_hand(using: str) -> None:
    execute(using, "BEGIN")


def enter_a_block(using: str) -> None:
    blocks.enter_context(transaction.atomic(using=using))


WAYS = [autocommit_off, begin_by_hand, enter_a_block]
each_way = pytest.mark.parametrize("leave_open", WAYS, ids=lambda way: way.__name__)


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are the workers themselves."""
    monkeypatch.setattr(broker, "kick", lambda *_, **__: True)


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Let the jobs with the script "leave open" have a body of the test's."""

    def replace(body: Callable[[Any], None]) -> None:
        def process(self: Any) -> None:
            if self.script == "leave open":
                body(self)
            else:
                Note.objects.using(self.alias).create(text="kept")

        for queue in (FifoJob, FreeJob, AtomicJob):
            monkeypatch.setattr(queue, "process", process)

    return replace


class TestABody:
    @each_way
    @pytest.mark.parametrize("queue", [FifoJob, FreeJob])
    def test_whose_writes_were_undone_has_failed(
        self, using: str, queue: Any, leave_open: Callable[[str], None], bodies: Any
    ) -> None:
        def body(job: Any) -> None:
            leave_open(using)
            Note.objects.using(using).create(text="undone")

        bodies(body)
        (job,) = enqueue(queue, using, ["leave open"])
        work_off(queue, using)
        connections[using].close()  # as Celery does between tasks: what was not committed is gone

        row = queue.rows(using).get(pk=job.pk)
        assert (row.status, row.attempt, row.worker_deaths) == ("FAILED", 1, 0)
        assert "left a transaction open" in row.error_message
        assert not Note.objects.using(using).exists()

    @each_way
    def test_takes_no_other_job_with_it(
        self, using: str, leave_open: Callable[[str], None], bodies: Any
    ) -> None:
        bodies(lambda job: leave_open(using))
        enqueue(FreeJob, using, ["leave open", "", ""])
        work_off(FreeJob, using)
        connections[using].close()
        assert statuses(FreeJob, using)[1:] == ["PROCESSED", "PROCESSED"]
        assert Note.objects.using(using).count() == 2

    @each_way
    def test_that_raised_in_it_keeps_its_own_outcome(
        self, using: str, leave_open: Callable[[str], None], bodies: Any
    ) -> None:
        def body(job: Any) -> None:
            leave_open(using)
            Note.objects.using(using).create(text="undone")
            raise TemporaryJobFailure("the other side is away")

        bodies(body)
        enqueue(FifoJob, using, ["leave open"])
        work_off(FifoJob, using)
        connections[using].close()
        row = FifoJob.rows(using).get()
        assert (row.status, row.error_message) == ("NEW", "the other side is away")
        assert not Note.objects.using(using).exists()

    def test_that_committed_and_left_autocommit_off_has_done_its_work(
        self, using: str, bodies: Any
    ) -> None:
        def body(job: Any) -> None:
            autocommit_off(using)
            Note.objects.using(using).create(text="committed")
            connections[using].commit()

        bodies(body)
        enqueue(FifoJob, using, ["leave open", ""])
        work_off(FifoJob, using)
        connections[using].close()
        assert statuses(FifoJob, using) == ["PROCESSED", "PROCESSED"]
        assert Note.objects.using(using).count() == 2

    @pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
    @pytest.mark.parametrize("queue", [FifoJob, AtomicJob])
    def test_may_not_leave_one_open_in_another_database_either(
        self, queue: Any, bodies: Any
    ) -> None:
        servers.require("postgresql")

        def body(job: Any) -> None:
            begin_by_hand("default")
            Note.objects.using("default").create(text="undone")

        bodies(body)
        enqueue(queue, "postgresql", ["leave open"])
        work_off(queue, "postgresql")
        assert statuses(queue, "postgresql") == ["FAILED"]
        assert not Note.objects.using("default").exists()

    @pytest.mark.parametrize("using", ["mariadb"], indirect=True)
    def test_may_switch_autocommit_off_by_a_statement_on_mariadb(
        self, using: str, bodies: Any
    ) -> None:
        def body(job: Any) -> None:
            execute(using, "SET autocommit = 0")
            Note.objects.using(using).create(text="undone")

        bodies(body)
        enqueue(FifoJob, using, ["leave open"])
        work_off(FifoJob, using)
        connections[using].close()
        assert statuses(FifoJob, using) == ["FAILED"]
        assert not Note.objects.using(using).exists()

    def test_may_begin_and_commit_by_hand(self, using: str, bodies: Any) -> None:
        def body(job: Any) -> None:
            execute(using, "BEGIN")
            Note.objects.using(using).create(text="kept too")
            execute(using, "COMMIT")

        bodies(body)
        enqueue(FifoJob, using, ["leave open", ""])
        work_off(FifoJob, using)
        assert statuses(FifoJob, using) == ["PROCESSED", "PROCESSED"]
        assert Note.objects.using(using).count() == 2


class TestAFunction:
    @pytest.fixture(autouse=True)
    def _forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "_functions", dict(registry._functions))

    @each_way
    def test_whose_writes_were_undone_has_failed_and_is_called_again(
        self, using: str, leave_open: Callable[[str], None]
    ) -> None:
        calls: list[int] = []

        @send.save_to_outbox(using=using, name="tests.left-open")
        def publish(number: int) -> None:
            calls.append(number)
            if len(calls) < 3:  # of the hook, and of the relay
                leave_open(using)
            Note.objects.using(using).create(text="written")

        publish(1)
        for _ in range(3):
            Event.rows(using).update(run_after=timezone.now() - timedelta(seconds=1))
            relay.relay_here(using, Budget(rows=1, seconds=60))
            connections[using].close()
            if len(calls) == 2:
                event = Event.rows(using).get()
                assert (event.status, event.error_count) == ("WAITING", 2)
                assert "left a transaction open" in event.error_message
                assert not Note.objects.using(using).exists()
        assert (len(calls), Note.objects.using(using).count()) == (3, 1)
        assert set(Event.rows(using).values_list("status", flat=True)) <= {"SENT"}

    @each_way
    def test_takes_no_other_event_with_it(
        self, using: str, leave_open: Callable[[str], None]
    ) -> None:
        @send.save_to_outbox_stream("left-open", "keep-order", key=str, using=using, name="tests.1")
        def publish(number: int) -> None:
            if number == 1:
                leave_open(using)
            else:
                Note.objects.using(using).create(text="kept")

        for number in (1, 2, 3):
            publish(number)
        relay.relay_here(using, Budget.endless())
        connections[using].close()
        assert Note.objects.using(using).count() == 2
        assert "WAITING" not in Event.rows(using).exclude(key="1").values_list("status", flat=True)

    @pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
    @pytest.mark.parametrize("leave_open", WAYS[:2], ids=lambda way: way.__name__)
    def test_does_not_undo_what_its_caller_has_open_in_another_database(
        self, leave_open: Callable[[str], None]
    ) -> None:
        servers.require("postgresql")

        @send.save_to_outbox(using="postgresql", name="tests.left-open")
        def publish() -> None:
            pass

        leave_open("default")
        try:
            Note.objects.using("default").create(text="of the caller")
            publish()  # in its own transaction, after which the hook runs
            connections["default"].commit()
        finally:
            connections["default"].close()
        assert Note.objects.using("default").count() == 1
        assert not Event.rows("postgresql").exclude(status="SENT").exists()


@pytest.mark.parametrize("leave_open", WAYS[:2], ids=lambda way: way.__name__)
def test_what_was_open_before_is_left_alone(using: str, leave_open: Callable[[str], None]) -> None:
    leave_open(using)
    try:
        Note.objects.using(using).create(text="of the caller")
        assert not undo_left_open(open_transactions())
        connections[using].commit()
    finally:
        connections[using].close()
    assert Note.objects.using(using).count() == 1


def test_the_wrapper_of_a_caller_is_gone_with_its_block(using: str) -> None:
    seen: list[str] = []

    def wrapper(run: Any, sql: str, *args: Any) -> Any:
        seen.append(sql)
        return run(sql, *args)

    execute(using, "SELECT 0")  # a new connection asks the server about itself
    connections[using].execute_wrappers.clear()
    with connections[using].execute_wrapper(wrapper):
        open_transactions()  # as a hook does, within a request that is measured
        execute(using, "SELECT 1")
    execute(using, "SELECT 2")
    assert seen == ["SELECT 1"]


def test_a_connection_that_is_closed_has_nothing_open(using: str) -> None:
    connections[using].ensure_connection()
    before = open_transactions()
    connections[using].close()
    assert not undo_left_open(before)


@pytest.mark.parametrize("using", ["postgresql"], indirect=True)
def test_a_session_that_the_server_ended_in_a_transaction_is_closed(using: str) -> None:
    connections[using].ensure_connection()
    before = open_transactions()
    connections[using].set_autocommit(False)
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT 1")
    connections[using].connection.pgconn.finish()
    undo_left_open(before)
    assert Note.objects.using(using).count() == 0


def execute(using: str, sql: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(sql)
