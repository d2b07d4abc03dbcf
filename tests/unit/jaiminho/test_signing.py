"""Signatures: what was changed in the database does not run."""

from __future__ import annotations

import uuid
from io import StringIO
from typing import Any, ClassVar

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command

from jaiminho_celery import signals
from jaiminho_celery.exceptions import BadEventSignature
from jaiminho_celery.models import Event
from jaiminho_celery.signing import sign, verify
from tests.unit.events import let_be_due, only, relay
from tests.unit.jobs import received

CHANGES = [
    ("uuid", uuid.UUID(int=1)),
    ("stream", "other"),
    ("key", "other"),
    ("strategy", "keep-order"),
    ("name", "tests.testapp.outbox:mail"),
    ("version", 2),
    ("body", '{"args":[2],"kwargs":{}}'),
    ("signature", "0" * 43),
    ("signature", "ä"),
    ("signature", ""),
]


def event(**columns: Any) -> Event:
    made = Event(stream="s", key="k", strategy="publish-on-commit", name="n", version=1, body="b")
    made.signature = sign(made)
    for name, value in columns.items():
        setattr(made, name, value)
    return made


def test_a_row_as_it_was_written_is_in_order() -> None:
    verify(event())


@pytest.mark.parametrize(("column", "value"), CHANGES)
def test_a_change_of_any_signed_column_is_noticed(column: str, value: Any) -> None:
    with pytest.raises(BadEventSignature):
        verify(event(**{column: value}))


def test_what_one_column_loses_another_can_not_win() -> None:
    moved = event()
    moved.stream, moved.key = "sk", ""
    with pytest.raises(BadEventSignature):
        verify(moved)


def test_the_key_can_be_rotated(settings: Any) -> None:
    settings.SECRET_KEY = "the old key"
    old = event()
    settings.SECRET_KEY = "the new key"
    with pytest.raises(BadEventSignature, match="SECRET_KEY_FALLBACKS"):
        verify(old)
    settings.SECRET_KEY_FALLBACKS = ["a much older key", "the old key"]
    verify(old)
    verify(event())


def test_a_process_with_the_old_key_runs_what_one_with_the_new_key_wrote(settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the new key", ["the old key"]
    new = event()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the old key", ["the new key"]
    verify(new)


def test_the_message_tells_unsigned_from_changed() -> None:
    with pytest.raises(BadEventSignature, match="not signed"):
        verify(event(signature=""))


@pytest.mark.django_db
class TestARowThatWasChanged:
    @pytest.mark.parametrize(("column", "value"), CHANGES)
    def test_becomes_a_dead_letter_and_calls_nothing(
        self, outbox: Any, column: str, value: Any
    ) -> None:
        outbox.bare(1)
        Event.objects.update(**{column: value})
        let_be_due()
        with received(signals.event_permanently_failed_by_events_relay) as failed:
            relay()
        assert outbox.calls == []
        assert (only().status, only().error_count) == ("DEAD", 1)
        assert only().error_message
        assert [sent["event_id"] for sent in failed] == [only().pk]

    def test_is_not_tried_again(self, outbox: Any) -> None:
        outbox.bare(1)
        Event.objects.update(body='{"args":[2],"kwargs":{}}')
        let_be_due()
        assert relay() == 1
        let_be_due()
        assert relay() == 0

    def test_does_not_stop_the_others(self, outbox: Any) -> None:
        outbox.bare(1)
        Event.objects.update(signature="")
        outbox.bare(2)
        let_be_due()
        relay()
        assert [args for _, args, _ in outbox.calls] == [(2,)]

    def test_can_be_let_through_by_a_setting(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"VERIFY_EVENTS_SIGNATURE": False}
        outbox.bare(1)
        Event.objects.update(body='{"args":[2],"kwargs":{}}')
        let_be_due()
        relay()
        assert [args for _, args, _ in outbox.calls] == [(2,)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "body",
    [
        "nonsense",
        '{"args": {"a": 1}, "kwargs": {}}',
        '{"args": [{"__jaiminho__": ["decimal", "much"]}], "kwargs": {}}',
    ],
)
def test_an_unreadable_body_is_a_dead_letter_even_where_nothing_is_verified(
    outbox: Any, settings: Any, body: str
) -> None:
    settings.JAIMINHO_CONFIG = {"VERIFY_EVENTS_SIGNATURE": False}
    outbox.bare(1)
    Event.objects.update(body=body)
    outbox.bare(2)
    let_be_due()
    relay()
    assert [args for _, args, _ in outbox.calls] == [(2,)]
    assert Event.objects.order_by("id")[0].status == "DEAD"


@pytest.mark.django_db
def test_signing_can_be_switched_off_and_then_nothing_passes_the_check(
    outbox: Any, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"SIGN_EVENTS": False}
    outbox.bare(1)
    assert only().signature == ""
    let_be_due()
    relay()
    assert (outbox.calls, only().status) == ([], "DEAD")


@pytest.mark.django_db
class TestSwitchingSigningOn:
    """Two steps: first sign and let both kinds through, then let only signed events through."""

    FIRST: ClassVar[Any] = {"SIGN_EVENTS": True, "VERIFY_EVENTS_SIGNATURE": False}
    SECOND: ClassVar[Any] = {"SIGN_EVENTS": True, "VERIFY_EVENTS_SIGNATURE": True}

    @pytest.fixture(autouse=True)
    def unsigned(self, outbox: Any, settings: Any) -> None:
        """An event from before."""
        settings.JAIMINHO_CONFIG = {"SIGN_EVENTS": False, "VERIFY_EVENTS_SIGNATURE": False}
        outbox.in_order("unsigned")
        assert only().signature == ""

    def test_the_first_step_delivers_both_kinds(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = self.FIRST
        outbox.in_order("signed")
        assert [bool(event.signature) for event in Event.objects.order_by("id")] == [False, True]
        relay()
        assert [args for _, args, _ in outbox.calls] == [("unsigned",), ("signed",)]

    def test_a_check_of_the_database_counts_what_still_waits(
        self, outbox: Any, settings: Any
    ) -> None:
        settings.JAIMINHO_CONFIG = self.FIRST
        outbox.in_order("signed")
        [message] = found()
        assert message.msg.startswith("1 unsigned events wait in 'default': it is too early")
        relay()
        assert found() == []

    def test_after_the_second_step_what_was_forgotten_is_told_and_becomes_a_dead_letter(
        self, outbox: Any, settings: Any
    ) -> None:
        settings.JAIMINHO_CONFIG = self.SECOND
        [message] = found()
        assert message.hint is not None
        assert "VERIFY_EVENTS_SIGNATURE to False" in message.hint
        relay()
        assert (outbox.calls, only().status) == ([], "DEAD")
        assert only().error_message == "it is not signed"
        assert found() == []

    def test_a_dead_letter_is_published_once_a_person_has_signed_it(
        self, outbox: Any, settings: Any
    ) -> None:
        settings.JAIMINHO_CONFIG = self.SECOND
        relay()
        only().replay()
        relay()
        assert only().status == "DEAD", "replaying alone changes nothing about the row"
        event = only()
        event.signature = sign(event)
        event.save(update_fields=["signature"])
        event.replay()
        relay()
        assert [args for _, args, _ in outbox.calls] == [("unsigned",)]

    def test_who_signs_nothing_is_not_told(self) -> None:
        assert found() == []

    def test_a_database_without_the_table_has_none(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.JAIMINHO_CONFIG = self.FIRST
        assert len(found()) == 1
        monkeypatch.setattr(Event._meta, "db_table", "not_migrated_yet")
        assert found() == []

    def test_the_command_shows_the_warning_where_it_is_asked_about_the_database(
        self, settings: Any
    ) -> None:
        settings.JAIMINHO_CONFIG = self.FIRST
        assert "jaiminho_celery.W301" in check("--database", "default")
        assert "jaiminho_celery.W301" not in check()


@pytest.mark.django_db
def test_switching_signing_off_without_verification_is_told_before(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"SIGN_EVENTS": False}
    assert [message.id for message in run_checks(tags=["jaiminho_celery"])] == [
        "jaiminho_celery.E201"
    ]


def found() -> list[CheckMessage]:
    """Return what the checks of the database say about signatures."""
    messages = run_checks(tags=["database"], databases=["default"])
    return [message for message in messages if message.id == "jaiminho_celery.W301"]


def check(*arguments: str) -> str:
    out = StringIO()
    call_command("check", *arguments, stdout=out, stderr=out)
    return out.getvalue()


@pytest.mark.django_db
def test_a_key_that_was_rotated_while_a_row_waited_delivers_it(outbox: Any, settings: Any) -> None:
    before = settings.SECRET_KEY
    outbox.bare(1)
    settings.SECRET_KEY = "the next key"
    settings.SECRET_KEY_FALLBACKS = [before]
    let_be_due()
    relay()
    assert [args for _, args, _ in outbox.calls] == [(1,)]
