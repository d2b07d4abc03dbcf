"""Signatures: what was changed in the database does not run."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

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
def test_a_key_that_was_rotated_while_a_row_waited_delivers_it(outbox: Any, settings: Any) -> None:
    before = settings.SECRET_KEY
    outbox.bare(1)
    settings.SECRET_KEY = "the next key"
    settings.SECRET_KEY_FALLBACKS = [before]
    let_be_due()
    relay()
    assert [args for _, args, _ in outbox.calls] == [(1,)]
