"""What is held, the assertions about it, and the mixin."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any
from unittest import result
from unittest.mock import ANY

import pytest
from django.db import connections, transaction
from django.test import TestCase
from django.utils import timezone

from jaiminho_celery.exceptions import NotSerializable, UnknownFunction
from jaiminho_celery.models import Event
from jaiminho_celery.test import Outbox, OutboxTestMixin, call
from tests.testapp import outbox as functions
from tests.testapp.models import LaneJob
from tests.unit.events import statuses
from tests.unit.jaiminho.kit.common import names

pytestmark = pytest.mark.django_db

COMMITTED = pytest.mark.django_db(transaction=True)


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
