"""MAX_ATTEMPTS and fingerprints: what a failure leaves on its row, and when it is the last."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from jaiminho_celery import signals
from jaiminho_celery.fingerprints import fingerprint
from jaiminho_celery.models import Event
from tests.unit.events import let_be_due, only, relay, relay_one
from tests.unit.jobs import received

pytestmark = pytest.mark.django_db(transaction=True)

BARE = "tests.testapp.outbox:bare"


@pytest.fixture
def at_most(settings: Any) -> Any:
    def at_most(attempts: int) -> None:
        settings.JAIMINHO_CONFIG = {"MAX_ATTEMPTS": attempts, "BACKOFF_BASE_SECONDS": 0.001}

    return at_most


def expire() -> None:
    """Let the worker that has the event be dead."""
    expired = timezone.now() - timedelta(seconds=1)
    Event.objects.update(
        status="PUBLISHING", lease_until=expired, running_lane=F("lane"), run_after=None
    )


class TestMaxAttempts:
    def test_in_the_hook_makes_a_dead_letter_whose_reason_says_so(
        self, outbox: Any, at_most: Any
    ) -> None:
        at_most(1)
        outbox.errors["bare"] = ValueError("away")
        with (
            received(signals.event_permanently_failed) as permanently,
            received(signals.event_failed_to_publish) as failed,
        ):
            outbox.bare({"order": 1})
        event = only()
        assert (event.status, event.error_count) == ("DEAD", 1)
        assert event.error_message == (
            "given up after 1 failed attempt (MAX_ATTEMPTS): ValueError: away"
        )
        assert failed == []
        (arguments,) = permanently
        assert arguments["sender"] is outbox.bare.original_func
        assert (arguments["event_payload"], arguments["event_id"]) == ({"order": 1}, event.pk)

    @pytest.mark.parametrize("function", ["bare", "in_order"])
    def test_in_the_relay_likewise_at_the_last_attempt_and_not_before(
        self, outbox: Any, at_most: Any, function: str
    ) -> None:
        at_most(3)
        outbox.errors[function] = ValueError("away")
        with received(signals.event_permanently_failed_by_events_relay) as permanently:
            getattr(outbox, function)({"order": 1})
            while only().error_count < 2:
                let_be_due()
                relay_one()
            assert (only().status, permanently) == ("WAITING", [])
            let_be_due()
            relay_one()
        assert (only().status, only().error_count) == ("DEAD", 3)
        assert "given up after 3 failed attempts (MAX_ATTEMPTS)" in only().error_message
        assert [arguments["event_payload"] for arguments in permanently] == [{"order": 1}]
        let_be_due()
        assert (relay(), len(outbox.calls)) == (0, 3)

    def test_that_was_lowered_counts_for_what_has_failed_more_often(
        self, outbox: Any, at_most: Any
    ) -> None:
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        Event.objects.update(error_count=50)
        at_most(5)
        relay_one()
        assert (only().status, only().error_count) == ("DEAD", 51)

    def test_starts_anew_with_a_replay(self, outbox: Any, at_most: Any) -> None:
        at_most(2)
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        for _ in range(2):
            relay_one()
            let_be_due()
        only().replay()
        relay_one()
        assert (only().status, only().error_count) == ("WAITING", 1)

    def test_counts_no_attempt_of_a_function_that_nobody_knows(
        self, outbox: Any, at_most: Any, settings: Any
    ) -> None:
        at_most(1)
        settings.JAIMINHO_CONFIG |= {"VERIFY_EVENTS_SIGNATURE": False}
        outbox.in_order(1)
        Event.objects.update(name="not.yet:known")
        for _ in range(3):
            assert relay_one() == 1
            assert (only().status, only().error_count, only().fingerprint) == ("WAITING", 0, "")
            let_be_due()

    def test_does_not_touch_what_succeeds(self, outbox: Any, at_most: Any) -> None:
        at_most(1)
        outbox.in_order(1)
        relay()
        assert only().status == "SENT"


class TestAWorkerThatDies:
    def test_makes_a_dead_letter_of_the_event_that_keeps_killing(
        self, outbox: Any, at_most: Any
    ) -> None:
        at_most(2)
        outbox.in_order({"order": 1})
        Event.objects.update(attempt=2, error_count=1)
        expire()
        with received(signals.event_permanently_failed_by_events_relay) as permanently:
            assert relay() == 0
        event = only()
        assert (event.status, event.error_count, event.lease_until) == ("DEAD", 2, None)
        assert "given up after 2 failed attempts (MAX_ATTEMPTS): The process" in event.error_message
        assert len(event.fingerprint) == 16
        (arguments,) = permanently
        assert arguments["sender"] is outbox.in_order.original_func
        assert (arguments["event_payload"], arguments["event_id"]) == ({"order": 1}, event.pk)

    def test_tells_so_even_if_nobody_knows_the_function(self, outbox: Any, at_most: Any) -> None:
        at_most(1)
        outbox.in_order(1)
        Event.objects.update(attempt=2, error_count=1, name="not.yet:known")
        expire()
        with received(signals.event_permanently_failed_by_events_relay) as permanently:
            relay()
        assert only().status == "DEAD"
        assert [arguments["sender"] for arguments in permanently] == [None]

    @pytest.mark.parametrize("attempt", [1, 2])
    def test_buries_no_event_that_has_never_failed(
        self, outbox: Any, at_most: Any, attempt: int
    ) -> None:
        at_most(1)
        outbox.in_order(1)
        Event.objects.update(attempt=attempt)
        expire()
        Event.objects.update(error_count=0)
        with received(signals.event_permanently_failed_by_events_relay) as permanently:
            relay()
            let_be_due()
            relay()
        assert (only().status, permanently) == ("SENT", [])

    def test_buries_nothing_without_a_maximum(self, outbox: Any) -> None:
        outbox.in_order(1)
        Event.objects.update(attempt=1000, error_count=999)
        expire()
        relay()
        assert (only().status, only().error_count) == ("WAITING", 1000)


class TestAFingerprint:
    def test_is_set_when_an_attempt_fails_and_is_that_of_its_error(self, outbox: Any) -> None:
        error = ValueError("away")
        outbox.errors["bare"] = error
        outbox.bare(1)
        assert only().fingerprint == fingerprint(BARE, error)

    def test_is_the_same_for_failures_alike_and_another_for_others(self, outbox: Any) -> None:
        for function, error in [
            ("bare", ValueError("order 1")),
            ("bare", ValueError("order 2")),
            ("bare", KeyError("order 2")),
            ("mail", ValueError("order 2")),
        ]:
            outbox.errors[function] = error
            getattr(outbox, function)(1)
        first, second, *others = Event.objects.order_by("id").values_list("fingerprint", flat=True)
        assert first == second
        assert len({first, *others}) == 3

    def test_is_set_when_an_event_is_buried(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (KeyError,)}
        outbox.errors["bare"] = KeyError("never")
        outbox.bare(1)
        outbox.in_order(2)
        Event.objects.filter(name__endswith="in_order").update(signature="")
        relay()
        dead = Event.objects.dead().values_list("fingerprint", flat=True)
        assert [len(digits) for digits in dead] == [16, 16]

    def test_goes_with_a_replay_and_with_success(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (KeyError,)}
        outbox.errors["in_order"] = KeyError("never")
        outbox.in_order(1)
        relay()
        only().replay()
        assert (only().fingerprint, only().error_message) == ("", "")
        outbox.errors["in_order"] = ValueError("away")
        relay_one()
        assert len(only().fingerprint) == 16
        outbox.errors.clear()
        let_be_due()
        relay()
        assert (only().status, only().fingerprint) == ("SENT", "")
