"""The test kit for users: the fixture, `drain()`, the assertions. On three databases: see
tests/integration/test_kit.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest import result
from unittest.mock import ANY

import pytest
from celery import Celery, chain, chord
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.test import TestCase
from django.utils import timezone

from jaiminho_celery import signals
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.exceptions import (
    BadEventSignature,
    DrainEndless,
    DrainFailed,
    NotSerializable,
    UnknownFunction,
)
from jaiminho_celery.models import Event

# The fixture that users get; tests/unit/conftest.py has another one of this name.
from jaiminho_celery.pytest_plugin import outbox as outbox
from jaiminho_celery.test import Outbox, OutboxTestMixin, call
from tests.testapp import outbox as functions
from tests.testapp.models import LaneJob
from tests.unit.conftest import messages, using_celery
from tests.unit.events import statuses

pytestmark = pytest.mark.django_db

COMMITTED = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    functions.forget()
    yield
    functions.forget()


def names() -> list[str]:
    """The functions that ran."""
    return [name for name, _, _ in functions.calls]


def on_call(monkeypatch: pytest.MonkeyPatch, body: Callable[..., Any]) -> None:
    """Let the functions of the test app do `body` besides noting that they ran."""
    note = functions._note

    def noting(function: str, args: Any, kwargs: Any) -> str:
        note(function, args, kwargs)
        return str(body(function, *args, **kwargs))

    monkeypatch.setattr(functions, "_note", noting)


class TestWhileItIsHeld:
    @COMMITTED
    def test_a_commit_publishes_nothing(self, outbox: Outbox) -> None:
        with transaction.atomic():
            functions.bare(1)
        assert names() == []
        assert [sent.args for sent in outbox.events] == [(1,)]
        assert outbox.published == []

    @COMMITTED
    def test_nobody_is_kicked(self, outbox: Outbox, kicked: Any) -> None:
        functions.in_order(1)
        LaneJob.enqueue(number=1)
        assert kicked() == []

    @COMMITTED
    def test_it_is_so_in_threads_that_the_test_starts(self, outbox: Outbox) -> None:
        def write() -> None:
            functions.bare(1)
            connections.close_all()

        thread = threading.Thread(target=write)
        thread.start()
        thread.join(20)
        assert names() == []
        assert len(outbox.events) == 1

    @COMMITTED
    def test_afterwards_hooks_publish_and_kicks_are_sent_again(self, kicked: Any) -> None:
        with Outbox().held() as held:
            functions.bare(1)
            functions.in_order(1)
        assert (names(), kicked()) == ([], [])
        functions.bare(2)
        functions.in_order(2)
        assert names() == ["bare"]
        assert held.published == []
        assert Event.objects.filter(status="WAITING").count() == 2
        Event.objects.all().delete()
        functions.in_order(3)
        assert [name for name, _ in kicked()] == ["jaiminho_celery.relay_events"]

    def test_hooks_that_a_test_runs_by_hand_publish_nothing(
        self, outbox: Outbox, django_capture_on_commit_callbacks: Any
    ) -> None:
        with django_capture_on_commit_callbacks(execute=True) as callbacks:
            functions.bare(1)
        assert len(callbacks) == 1
        assert names() == []
        outbox.drain()
        assert names() == ["bare"]

    def test_what_is_rolled_back_was_never_sent(self, outbox: Outbox) -> None:
        functions.bare("stays")
        with pytest.raises(ValueError, match="undo"), transaction.atomic():
            functions.bare("goes")
            raise ValueError("undo")
        assert [sent.args for sent in outbox.events] == [("stays",)]

    def test_bad_arguments_raise_at_the_call(self, outbox: Outbox) -> None:
        with pytest.raises(NotSerializable):
            functions.bare(object())
        outbox.assert_nothing_sent()


class TestTheAssertions:
    def test_a_call_is_named_by_function_original_name_or_alias(self, outbox: Outbox) -> None:
        functions.renamed(1)
        for target in (
            functions.renamed,
            functions.renamed.original_func,
            "tests.renamed",
            "tests.former",
        ):
            (sent,) = outbox.assert_sent(target, 1)
            assert sent.name == "tests.renamed"
        functions.Mailer.outside(2)
        outbox.assert_sent(functions.Mailer.outside, 2)
        outbox.assert_sent("tests.testapp.outbox:Mailer.outside", 2)

    def test_arguments_are_compared_as_the_function_receives_them(self, outbox: Outbox) -> None:
        functions.bare({"price": Decimal("1.5")}, (1, 2), at=timezone.now())
        functions.paint(functions.Colour("red"))
        outbox.assert_sent(functions.bare, {"price": Decimal("1.5")}, (1, 2), at=ANY)
        outbox.assert_sent(functions.bare, {"price": ANY}, [1, 2], at=ANY)
        outbox.assert_sent(functions.paint, functions.Colour("red"))
        outbox.assert_sent(functions.paint, {"colour": "red"})
        outbox.assert_not_sent(functions.bare, {"price": Decimal("1.5")}, (1, 3), at=ANY)

    def test_without_arguments_any_call_will_do(self, outbox: Outbox) -> None:
        functions.bare(1)
        functions.bare(2)
        assert [sent.args for sent in outbox.assert_sent(functions.bare)] == [(1,), (2,)]
        with pytest.raises(AssertionError, match="was sent"):
            outbox.assert_not_sent(functions.bare)

    def test_what_was_delivered_counts_like_what_waits(self, outbox: Outbox) -> None:
        functions.bare(1)
        functions.in_order(2)
        outbox.drain()
        functions.bare(3)
        outbox.assert_sent(functions.bare, 1)
        assert [sent.args for sent in outbox.sent] == [(1,), (2,), (3,)]
        assert [str(sent.status) for sent in outbox.sent] == ["SENT", "SENT", "WAITING"]

    def test_a_failure_shows_what_was_sent_instead(self, outbox: Outbox) -> None:
        functions.per_shop("Graz", 7)
        with pytest.raises(AssertionError) as raised:
            outbox.assert_sent(functions.per_shop, "Linz", 7)
        assert str(raised.value).splitlines() == [
            "tests.testapp.outbox:per_shop('Linz', 7) was not sent.",
            "Sent were:",
            "  1. tests.testapp.outbox:per_shop('Graz', 7)  [WAITING, stream 'stock', key 'Graz']",
        ]

    def test_that_nothing_was_sent_fails_with_what_was(self, outbox: Outbox) -> None:
        outbox.assert_nothing_sent()
        functions.bare(1)
        with pytest.raises(AssertionError, match=r"bare\(1\)"):
            outbox.assert_nothing_sent()

    def test_the_order_is_that_of_the_calls_others_may_stand_between(self, outbox: Outbox) -> None:
        functions.bare(1)
        functions.in_order(2)
        functions.bare(3)
        outbox.assert_sent_in_order(call(functions.bare, 1), call(functions.bare, 3))
        outbox.assert_sent_in_order(functions.bare, functions.in_order, functions.bare)
        with pytest.raises(AssertionError, match="number 2, was not sent in this place"):
            outbox.assert_sent_in_order(call(functions.bare, 3), functions.in_order)

    def test_a_name_that_nobody_has_is_a_mistake_of_the_test(self, outbox: Outbox) -> None:
        with pytest.raises(UnknownFunction, match=r"tests\.testapp\.outbox:bare"):
            outbox.assert_not_sent("tests.testapp.outbox:bear")
        with pytest.raises(TypeError, match="neither a decorated function"):
            outbox.assert_not_sent(names)

    def test_clear_forgets_what_was_sent_so_far(self, outbox: Outbox) -> None:
        functions.bare(1)
        outbox.drain()
        functions.in_order(2)
        outbox.clear()
        outbox.assert_nothing_sent()
        assert (outbox.published, statuses()) == ([], [])


class TestDrain:
    def test_runs_the_functions_in_the_order_of_the_calls(self, outbox: Outbox) -> None:
        functions.in_order(1)
        functions.bare(2, three=(3,))
        functions.in_order(4)
        delivered = outbox.drain()
        assert functions.calls == [
            ("in_order", (1,), {}),
            ("bare", (2,), {"three": [3]}),  # through JSON, as in production
            ("in_order", (4,), {}),
        ]
        assert delivered == outbox.published
        assert outbox.events == []

    def test_settles_as_production_does(self, outbox: Outbox) -> None:
        heard = []

        def hear(signal: Any, sender: Any, event_payload: Any, event_id: int, **_: Any) -> None:
            heard.append((signal, sender, event_payload))

        for signal in (signals.event_published, signals.event_published_by_events_relay):
            signal.connect(hear)
        functions.bare(1)
        functions.in_order(2)
        outbox.drain()
        assert statuses() == ["SENT"]  # the relay keeps its rows, the hook doesn't
        assert heard == [
            (signals.event_published, functions.bare.original_func, 1),
            (signals.event_published_by_events_relay, functions.in_order.original_func, 2),
        ]

    def test_fails_with_the_error_of_the_function_and_names_the_event(self, outbox: Outbox) -> None:
        functions.errors["bare"] = ZeroDivisionError("by zero")
        functions.bare(1)
        functions.mail(2)
        with pytest.raises(AssertionError, match=r"bare .*ZeroDivisionError: by zero") as raised:
            outbox.drain()
        assert isinstance(raised.value, DrainFailed)
        assert raised.value.__cause__ is functions.errors["bare"]
        assert names() == ["bare"]

    def test_lets_failures_go_the_way_of_production_if_told(
        self, outbox: Outbox, settings: Any
    ) -> None:
        settings.JAIMINHO_CONFIG = {"BACKOFF_BASE_SECONDS": 1e-9}  # due again at once
        functions.errors["in_order"] = ZeroDivisionError("by zero")
        functions.in_order(1)
        functions.in_order(2)
        functions.bare(3)
        outbox.drain(raise_errors=False)
        assert names() == ["in_order", "bare"]  # once, and nothing overtakes it
        (failed,) = outbox.failed
        assert failed.args == (1,)
        assert "ZeroDivisionError" in failed.error
        assert len(outbox.events) == 2
        functions.errors.clear()
        outbox.drain()
        assert names() == ["in_order", "bare", "in_order", "in_order"]
        assert (outbox.failed, outbox.events) == ([], [])

    def test_leaves_a_dead_letter_and_what_it_holds(self, outbox: Outbox, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (ZeroDivisionError,)}
        functions.errors["in_order"] = ZeroDivisionError("by zero")
        functions.in_order(1)
        functions.in_order(2)
        outbox.drain(raise_errors=False)
        outbox.drain()
        assert [sent.args for sent in outbox.dead] == [(1,)]
        assert [sent.args for sent in outbox.events] == [(2,)]
        assert names() == ["in_order"]
        outbox.assert_sent(functions.in_order, 1)

    def test_fails_at_a_row_that_was_tampered_with(self, outbox: Outbox) -> None:
        functions.bare(1)
        Event.objects.update(body='{"args":[2],"kwargs":{}}')
        with pytest.raises(DrainFailed, match="changed after it was signed") as raised:
            outbox.drain()
        assert isinstance(raised.value.__cause__, BadEventSignature)
        assert names() == []
        assert len(outbox.dead) == 1

    def test_fails_at_a_name_that_nobody_knows(self, outbox: Outbox, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"VERIFY_EVENTS_SIGNATURE": False}
        functions.bare(1)
        Event.objects.update(name="tests.nobody")
        with pytest.raises(DrainFailed, match=r"tests\.nobody .*no function of this process"):
            outbox.drain()

    def test_goes_on_with_what_is_written_meanwhile(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_call(monkeypatch, lambda _, n: functions.in_order(n - 1) if n else None)
        functions.bare(3)
        assert [sent.args for sent in outbox.drain()] == [(3,), (2,), (1,), (0,)]

    def test_ends_where_events_write_events_without_end(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_call(monkeypatch, lambda _, n: functions.bare(n + 1))
        functions.bare(0)
        with pytest.raises(DrainEndless, match="More than 5 events"):
            outbox.drain(limit=5)
        assert len(functions.calls) == 6

    def test_awaits_no_due_time_unless_told(self, outbox: Outbox) -> None:
        functions.bare(1)
        functions.in_order(2)
        later = timezone.now() + timedelta(hours=1)
        Event.objects.update(status="WAITING", run_after=later, lease_until=None)
        assert outbox.drain(ignore_due_times=False) == []
        assert len(outbox.events) == 2
        outbox.drain()
        assert names() == ["bare", "in_order"]

    def test_takes_in_what_a_relay_of_the_test_publishes(self, outbox: Outbox) -> None:
        functions.in_order(1)
        call_command("events_relay")
        assert [sent.args for sent in outbox.published] == [(1,)]
        assert outbox.drain() == []

    def test_can_not_be_called_by_what_it_runs(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_call(monkeypatch, lambda *_: outbox.drain())
        functions.bare(1)
        with pytest.raises(DrainFailed, match="something that drain"):
            outbox.drain()

    def test_a_function_that_gives_up_a_transaction_ends_only_its_own_work(
        self, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            transaction.set_rollback(True)
            raise IntegrityError("a statement failed")

        on_call(monkeypatch, fail)
        functions.bare(1)
        outbox.drain(raise_errors=False)
        assert not connection.needs_rollback
        assert len(outbox.failed) == 1


class TestCelery:
    @pytest.fixture
    def app(self) -> Iterator[Celery]:
        app = OutboxCelery("kit", broker="memory://", set_as_current=False)
        app.conf.update(task_ignore_result=True)

        @app.task(name="kit.add", shared=False)
        def add(*numbers: Any, **_: Any) -> int:
            functions.calls.append(("add", numbers, {}))
            return len(numbers)

        @app.task(name="kit.fail", shared=False, bind=True, max_retries=2)
        def fail(self: Any, retried: bool = False) -> None:
            functions.calls.append(("fail", (self.request.retries, self.request.is_eager), {}))
            error = ZeroDivisionError("by zero")
            raise self.retry(exc=error, countdown=60) if retried else error

        with using_celery(app):
            yield app
            assert messages(app) == []  # nothing of all this goes to the broker

    def test_a_message_is_seen_as_the_call_of_its_task(self, outbox: Outbox, app: Any) -> None:
        result = app.tasks["kit.add"].apply_async((1, (2,)), {"at": 3}, headers={"tenant": "a"})
        (sent,) = outbox.assert_sent(app.tasks["kit.add"], 1, (2,), at=3)
        assert outbox.assert_sent("kit.add", 1, [2], at=3) == [sent]
        outbox.assert_not_sent("kit.add", 1)
        assert (sent.task_id, sent.stream, sent.args) == (result.id, "celery", (1, [2]))
        assert (sent.headers["tenant"], sent.routing_key) == ("a", "celery")

    def test_tasks_run_like_in_a_worker(self, outbox: Outbox, app: Any) -> None:
        functions.bare(0)
        app.tasks["kit.add"].apply_async((1, 2), compression="gzip", countdown=60)
        app.send_task("kit.add", (3, 4))
        assert names() == []
        assert [sent.name for sent in outbox.drain()] == [
            "tests.testapp.outbox:bare",
            "kit.add",
            "kit.add",
        ]
        assert [args for _, args, _ in functions.calls] == [(0,), (1, 2), (3, 4)]

    def test_a_chain_a_link_and_a_group_go_on(self, outbox: Outbox, app: Any) -> None:
        add = app.tasks["kit.add"]
        chain(add.s(1, 2), add.s(10))()
        add.apply_async((5,), link=add.s(6))
        outbox.drain()
        assert [args for _, args, _ in functions.calls] == [(1, 2), (5,), (2, 10), (1, 6)]
        assert len(outbox.published) == 4

    def test_a_relay_of_the_test_runs_no_tasks(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.add"].delay(1)
        Event.objects.update(status="WAITING", lease_until=None)
        call_command("events_relay")
        assert [sent.name for sent in outbox.published] == ["kit.add"]
        app.tasks["kit.add"].delay(2)
        outbox.drain()
        assert [args for _, args, _ in functions.calls] == [(2,)]

    def test_the_body_of_a_chord_runs_if_results_are_stored(self, outbox: Outbox, app: Any) -> None:
        app.conf.update(
            task_ignore_result=False,
            result_backend="cache+memory://",
            task_store_eager_result=True,
        )
        add = app.tasks["kit.add"]
        chord([add.s(1), add.s(2)], add.s())()
        outbox.drain()
        assert [args for _, args, _ in functions.calls] == [(1,), (2,), ([1, 1],)]

    def test_tasks_are_not_run_if_told(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.add"].delay(1, 2)
        assert [sent.args for sent in outbox.drain(run_tasks=False)] == [(1, 2)]
        assert names() == []
        assert outbox.events == []

    def test_a_task_that_fails_fails_the_drain(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.fail"].delay()
        with pytest.raises(DrainFailed, match=r"kit\.fail .*ZeroDivisionError: by zero") as raised:
            outbox.drain()
        assert isinstance(raised.value.__cause__, ZeroDivisionError)

    def test_a_task_that_fails_is_shown_if_told(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.fail"].delay()
        app.tasks["kit.add"].delay(1)
        outbox.drain(raise_errors=False)
        ((name, error),) = [(sent.name, sent.error) for sent in outbox.failed]
        assert (name, error) == ("kit.fail", "ZeroDivisionError: by zero")
        assert names() == ["fail", "add"]

    def test_a_retry_is_a_message_of_its_own(self, outbox: Outbox, app: Any) -> None:
        app.tasks["kit.fail"].delay(retried=True)
        with pytest.raises(DrainFailed, match="ZeroDivisionError"):
            outbox.drain()
        assert [args for _, args, _ in functions.calls] == [(0, False), (1, False), (2, False)]

    def test_a_task_that_nobody_here_knows_is_complained_of(self, outbox: Outbox, app: Any) -> None:
        app.send_task("elsewhere.pack", (1,))
        outbox.assert_sent("elsewhere.pack", 1)
        with pytest.raises(DrainFailed, match=r"no task 'elsewhere\.pack'"):
            outbox.drain()


class _Orders(OutboxTestMixin, TestCase):
    def test_an_order(self) -> None:
        functions.bare(1)
        self.outbox.assert_sent(functions.bare, 1)
        self.outbox.drain()

    def test_a_wrong_expectation(self) -> None:
        functions.bare(1)
        self.outbox.assert_sent(functions.bare, 2)


_Orders.__test__ = False  # type: ignore[attr-defined]


@COMMITTED
class TestTheMixin:
    def test_gives_a_test_case_an_outbox_and_lets_it_go_again(self) -> None:
        _Orders("test_an_order").run(seen := result.TestResult())
        assert seen.wasSuccessful(), seen.errors + seen.failures
        assert names() == ["bare"]
        functions.bare(2)
        assert names() == ["bare", "bare"]

    def test_reports_a_wrong_expectation_as_a_failure(self) -> None:
        _Orders("test_a_wrong_expectation").run(seen := result.TestResult())
        assert (len(seen.failures), seen.errors) == (1, [])
