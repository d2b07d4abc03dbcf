"""What becomes of an event: published, failed, dead, kept or gone; and in which order."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from jaiminho_celery import cleanup
from jaiminho_celery.models import Event
from jaiminho_celery.states import EventStatus
from parviraptor_celery.exceptions import IllegalTransition
from tests.unit.events import let_be_due, only, relay, relay_one, statuses

commits = pytest.mark.django_db(transaction=True)


class Hopeless(Exception):
    """Listed as not worth a retry."""


class MoreHopeless(Hopeless):
    """Derives from a listed one."""


@pytest.fixture
def hopeless(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (Hopeless,)}


@commits
@pytest.mark.parametrize("persist", [False, True])
@pytest.mark.parametrize("delete", [False, True])
class TestWhatStays:
    @pytest.fixture(autouse=True)
    def config(self, settings: Any, persist: bool, delete: bool) -> None:
        settings.JAIMINHO_CONFIG = {"PERSIST_ALL_EVENTS": persist, "DELETE_AFTER_SEND": delete}

    def test_after_the_hook_is_everything_or_nothing(
        self, outbox: Any, persist: bool, delete: bool
    ) -> None:
        outbox.bare(1)
        assert statuses() == (["SENT"] if persist else [])

    def test_after_the_relay_is_the_row_unless_it_is_to_be_deleted(
        self, outbox: Any, persist: bool, delete: bool
    ) -> None:
        outbox.in_order(1)
        relay()
        assert statuses() == ([] if delete else ["SENT"])
        assert len(outbox.calls) == 1

    def test_after_the_relay_of_what_the_hook_failed_likewise(
        self, outbox: Any, persist: bool, delete: bool
    ) -> None:
        outbox.errors["bare"] = ValueError("away")
        outbox.bare(1)
        outbox.errors.clear()
        let_be_due()
        relay()
        assert statuses() == ([] if delete else ["SENT"])

    def test_after_a_failure_is_the_row(self, outbox: Any, persist: bool, delete: bool) -> None:
        outbox.errors.update(bare=ValueError("away"), in_order=ValueError("away"))
        outbox.bare(1)
        outbox.in_order(1)
        relay()
        assert statuses() == ["WAITING", "WAITING"]


@commits
class TestAPublishedEvent:
    def test_that_stays_has_the_time(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"PERSIST_ALL_EVENTS": True}
        before = timezone.now()
        outbox.bare(1)
        event = only()
        assert before - timedelta(seconds=1) <= event.sent_at <= timezone.now()
        assert (event.lease_until, event.leased_by, event.error_message) == (None, "", "")

    def test_is_not_published_again(self, outbox: Any) -> None:
        outbox.in_order(1)
        relay()
        let_be_due()
        assert relay() == 0
        assert len(outbox.calls) == 1

    def test_by_the_relay_forgets_why_it_failed(self, outbox: Any) -> None:
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        relay()
        outbox.errors.clear()
        let_be_due()
        relay()
        assert (only().status, only().error_message, only().running_lane) == ("SENT", "", None)


@commits
class TestAFailure:
    def test_in_the_hook_reaches_nobody_and_waits_for_the_relay(self, outbox: Any) -> None:
        outbox.errors["bare"] = ValueError("away")
        outbox.bare(1)
        event = only()
        assert (event.status, event.error_count) == ("WAITING", 1)
        assert event.error_message == "ValueError: away"
        assert event.lease_until is None
        assert event.run_after is not None

    def test_in_the_hook_does_not_keep_the_next_from_running(self, outbox: Any) -> None:
        outbox.errors["bare"] = ValueError("away")
        with transaction.atomic():
            outbox.bare(1)
            outbox.mail(2)
        assert [name for name, _, _ in outbox.calls] == ["bare", "mail"]

    def test_in_the_relay_is_tried_again_for_ever(self, outbox: Any) -> None:
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        Event.objects.update(error_count=1000)
        for tries in range(1, 4):
            relay_one()
            assert (only().status, only().error_count) == ("WAITING", 1000 + tries)
            let_be_due()
        outbox.errors.clear()
        relay()
        assert only().status == "SENT"

    def test_waits_no_longer_than_the_cap(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"BACKOFF_CAP_SECONDS": 20, "BACKOFF_BASE_SECONDS": 10}
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        for ceiling in (10, 20, 20, 20):
            relay_one()
            pause = only().run_after - only().modified_at
            assert timedelta(0) <= pause <= timedelta(seconds=ceiling)
            let_be_due()

    def test_pauses_differ_so_that_retries_spread(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"BACKOFF_BASE_SECONDS": 100}
        outbox.errors["bare"] = ValueError("away")
        for _ in range(10):
            outbox.bare(1)
        assert Event.objects.values("run_after").distinct().count() == 10

    def test_that_is_not_due_is_not_tried(self, outbox: Any) -> None:
        outbox.errors["bare"] = ValueError("away")
        outbox.bare(1)
        Event.objects.update(run_after=timezone.now() + timedelta(hours=1))
        assert relay() == 0

    def test_is_handed_to_the_error_tracker(self, outbox: Any, settings: Any) -> None:
        captured: list[BaseException] = []
        settings.JAIMINHO_CONFIG = {"DEFAULT_CAPTURE_EXCEPTION": captured.append}
        error = outbox.errors["bare"] = ValueError("away")
        outbox.bare(1)
        assert captured == [error]

    def test_of_the_error_tracker_harms_nothing(self, outbox: Any, settings: Any) -> None:
        def capture(error: BaseException) -> None:
            raise RuntimeError("the tracker is away, too")

        settings.JAIMINHO_CONFIG = {"DEFAULT_CAPTURE_EXCEPTION": capture}
        outbox.errors["bare"] = ValueError("away")
        outbox.bare(1)
        assert only().status == "WAITING"


@commits
@pytest.mark.usefixtures("hopeless")
class TestADeadLetter:
    @pytest.mark.parametrize("error", [Hopeless, MoreHopeless])
    @pytest.mark.parametrize("name", ["bare", "in_order"])
    def test_is_what_is_not_worth_a_retry(self, outbox: Any, error: Any, name: str) -> None:
        outbox.errors[name] = error("never")
        getattr(outbox, name)(1)
        relay()
        event = only()
        assert (event.status, event.error_count) == ("DEAD", 1)
        assert event.error_message == f"{error.__name__}: never"

    def test_is_never_tried_by_itself_nor_cleaned(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG |= {"TIME_TO_DELETE": timedelta(0), "DELETE_AFTER_SEND": True}
        outbox.errors["bare"] = Hopeless()
        outbox.bare(1)
        Event.objects.update(created_at=timezone.now() - timedelta(days=999))
        let_be_due()
        assert (relay(), cleanup.clean_all(), statuses()) == (0, 0, ["DEAD"])

    def test_can_be_replayed(self, outbox: Any) -> None:
        outbox.errors["bare"] = Hopeless()
        outbox.bare(1)
        assert only().replay()
        assert (only().status, only().error_count) == ("WAITING", 0)
        outbox.errors.clear()
        relay()
        assert only().status == "SENT"
        assert len(outbox.calls) == 2

    def test_can_be_skipped(self, outbox: Any) -> None:
        outbox.errors["bare"] = Hopeless()
        outbox.bare(1)
        assert only().skip()
        let_be_due()
        assert (relay(), only().status) == (0, "SKIPPED")

    @pytest.mark.parametrize("verb", ["replay", "skip", "discard"])
    @pytest.mark.parametrize("status", [s for s in EventStatus if s != "DEAD"])
    def test_is_the_only_thing_to_decide_about(self, verb: str, status: str) -> None:
        with pytest.raises(IllegalTransition):
            getattr(Event(pk=1, status=status), verb)()

    @pytest.mark.parametrize("decision", ["replay", "skip", "discard"])
    def test_holds_its_key_until_it_is_decided_about(self, outbox: Any, decision: str) -> None:
        outbox.errors["per_shop"] = Hopeless()
        outbox.per_shop("a", 1)
        relay()
        outbox.errors.clear()
        outbox.calls.clear()
        outbox.per_shop("a", 2)
        outbox.per_shop("b", 3)
        relay()
        assert [args for _, args, _ in outbox.calls] == [("b", 3)]
        getattr(Event.objects.order_by("id")[0], decision)()
        outbox.calls.clear()
        relay()
        first = [("a", 1)] if decision == "replay" else []
        assert [args for _, args, _ in outbox.calls] == [*first, ("a", 2)]


@commits
class TestOrder:
    def test_is_that_of_the_ids(self, outbox: Any) -> None:
        for number in range(5):
            outbox.in_order(number)
        relay()
        assert [args for _, args, _ in outbox.calls] == [(number,) for number in range(5)]

    def test_is_kept_when_the_head_fails(self, outbox: Any) -> None:
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        outbox.in_order(2)
        relay_one()
        Event.objects.filter(status="WAITING", error_count=1).update(
            run_after=timezone.now() + timedelta(hours=1)
        )
        relay()
        assert [args for _, args, _ in outbox.calls] == [(1,)]
        outbox.errors.clear()
        let_be_due()
        relay()
        assert [args for _, args, _ in outbox.calls] == [(1,), (1,), (2,)]

    def test_is_a_matter_of_each_key(self, outbox: Any) -> None:
        for shop in "ab":
            for number in (1, 2):
                outbox.per_shop(shop, number)
        head = Event.objects.order_by("id")[0]
        Event.objects.filter(pk=head.pk).update(run_after=timezone.now() + timedelta(hours=1))
        relay()
        assert [args for _, args, _ in outbox.calls] == [("b", 1), ("b", 2)]

    def test_does_not_bind_other_streams(self, outbox: Any) -> None:
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        outbox.per_shop("a", 1)
        relay()
        assert "per_shop" in [name for name, _, _ in outbox.calls]


@commits
class TestAHookThatDied:
    def test_leaves_its_event_to_the_relay_once_the_lease_has_run_out(self, outbox: Any) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            transaction.on_commit(lambda: 1 / 0)  # Django drops the later hooks: ours
            outbox.bare(1)
        assert relay() == 0
        Event.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert relay() == 1
        assert (outbox.calls, only().status) == ([("bare", (1,), {})], "SENT")

    def test_counts_no_error(self, outbox: Any) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            transaction.on_commit(lambda: 1 / 0)
            outbox.bare(1)
        Event.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        outbox.errors["bare"] = ValueError("away")
        relay_one()
        assert only().error_count == 1

    def test_and_wakes_up_again_sends_nothing_twice(
        self, outbox: Any, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The transaction took so long that the relay has the event already."""
        settings.JAIMINHO_CONFIG = {"LEASE_SECONDS": 1e-6}
        with transaction.atomic():
            outbox.bare(1)
            Event.objects.update(status="SENT", sent_at=timezone.now(), lease_until=None)
        assert outbox.calls == []
        assert only().status == "SENT"

    def test_and_records_its_outcome_too_late_changes_nothing(self, outbox: Any) -> None:
        class Thief(list[Any]):
            def append(self, call: Any) -> None:
                super().append(call)
                Event.objects.update(attempt=9)

        outbox.calls, kept = Thief(), outbox.calls
        try:
            outbox.bare(1)
        finally:
            outbox.calls = kept
        assert (only().status, only().attempt) == ("PUBLISHING", 9)


@commits
@pytest.mark.parametrize("name", ["bare", "in_order", "per_shop"])
@pytest.mark.parametrize("error", [None, ValueError, Hopeless])
@pytest.mark.usefixtures("hopeless")
def test_logs_name_the_event_and_never_what_it_carries(
    outbox: Any, caplog: pytest.LogCaptureFixture, name: str, error: Any
) -> None:
    if error:
        outbox.errors[name] = error("SECRET")
    with caplog.at_level(logging.DEBUG):
        getattr(outbox, name)("SECRET", word="SECRET")
        relay()
    own = [r for r in caplog.records if r.name.startswith(("jaiminho", "parviraptor"))]
    assert any(f"testapp.outbox:{name}" in record.getMessage() for record in own)
    assert not any("SECRET" in logging.Formatter().format(record) for record in own)
