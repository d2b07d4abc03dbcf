"""Working the outbox off inside a test."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from jaiminho_celery import signals
from jaiminho_celery.exceptions import BadEventSignature, DrainEndless, DrainFailed
from jaiminho_celery.models import Event
from jaiminho_celery.test import Outbox
from tests.testapp import outbox as functions
from tests.unit.events import statuses
from tests.unit.jaiminho.kit.common import names

pytestmark = pytest.mark.django_db


def on_call(monkeypatch: pytest.MonkeyPatch, body: Callable[..., Any]) -> None:
    """Let the functions of the test app do `body` besides noting that they ran."""
    note = functions._note

    def noting(function: str, args: Any, kwargs: Any) -> str:
        note(function, args, kwargs)
        return str(body(function, *args, **kwargs))

    monkeypatch.setattr(functions, "_note", noting)


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
