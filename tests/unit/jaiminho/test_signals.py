"""The six signals: which one is sent when, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from jaiminho_celery import signals
from jaiminho_celery.models import Event
from tests.unit.events import let_be_due, only, relay
from tests.unit.jobs import received

pytestmark = pytest.mark.django_db(transaction=True)

HOOK = ("event_published", "event_failed_to_publish", "event_permanently_failed")
NAMES = [*HOOK, *(f"{name}_by_events_relay" for name in HOOK)]

OUTCOMES = pytest.mark.parametrize(
    ("error", "name"),
    [
        (None, "event_published"),
        (ValueError("away"), "event_failed_to_publish"),
        (KeyError("never"), "event_permanently_failed"),
    ],
)


@pytest.fixture(autouse=True)
def config(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (KeyError,)}


@pytest.fixture
def sent() -> Iterator[dict[str, list[dict[str, Any]]]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(received(getattr(signals, name))) for name in NAMES}


def only_one(sent: dict[str, list[dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    [(name, [arguments])] = [(name, got) for name, got in sent.items() if got]
    return name, arguments


@OUTCOMES
def test_the_hook_sends_one(outbox: Any, sent: Any, error: Any, name: str) -> None:
    if error:
        outbox.errors["bare"] = error
    outbox.bare({"type": "order"}, 2, word=3)
    got, arguments = only_one(sent)
    assert got == name
    assert arguments["sender"] is outbox.bare.original_func
    assert arguments["event_payload"] == {"type": "order"}
    if error:
        assert arguments["event_id"] == only().pk
    else:
        assert isinstance(arguments["event_id"], int)


@OUTCOMES
@pytest.mark.parametrize("function", ["in_order", "per_shop"])
def test_the_relay_sends_one(outbox: Any, sent: Any, error: Any, name: str, function: str) -> None:
    if error:
        outbox.errors[function] = error
    getattr(outbox, function)({"type": "order"})
    relay()
    got, arguments = only_one(sent)
    assert got == f"{name}_by_events_relay"
    assert arguments["sender"] is getattr(outbox, function).original_func
    assert arguments["event_payload"] == {"type": "order"}
    assert arguments["event_id"] == only().pk


def test_the_relay_sends_its_own_for_what_the_hook_failed(outbox: Any, sent: Any) -> None:
    outbox.errors["bare"] = ValueError("away")
    outbox.bare(1)
    outbox.errors.clear()
    let_be_due()
    relay()
    assert [name for name in NAMES if sent[name]] == [
        "event_failed_to_publish",
        "event_published_by_events_relay",
    ]


def test_the_payload_is_an_empty_dictionary_without_positional_arguments(
    outbox: Any, sent: Any
) -> None:
    outbox.bare(word=1)
    assert only_one(sent)[1]["event_payload"] == {}


@pytest.mark.parametrize("payload", [0, "", None, [], False])
def test_the_payload_is_the_first_argument_even_if_it_is_empty(
    outbox: Any, sent: Any, payload: Any
) -> None:
    outbox.bare(payload)
    assert only_one(sent)[1]["event_payload"] == payload


def test_a_receiver_can_ask_for_one_function(outbox: Any) -> None:
    seen: list[int] = []

    def receive(event_id: int, **_: Any) -> None:
        seen.append(event_id)

    signals.event_published.connect(receive, sender=outbox.mail.original_func)
    try:
        outbox.bare(1)
        assert seen == []
        outbox.mail(1)
        assert len(seen) == 1
    finally:
        signals.event_published.disconnect(receive, sender=outbox.mail.original_func)


@OUTCOMES
@pytest.mark.parametrize("function", ["bare", "in_order"])
def test_a_receiver_that_raises_harms_nothing(
    outbox: Any, error: Any, name: str, function: str
) -> None:
    def receive(**_: Any) -> None:
        raise RuntimeError("a receiver")

    chosen = name if function == "bare" else f"{name}_by_events_relay"
    if error:
        outbox.errors[function] = error
    signal = getattr(signals, chosen)
    signal.connect(receive)
    try:
        getattr(outbox, function)(1)
        getattr(outbox, function)(2)
        relay()
    finally:
        signal.disconnect(receive)
    assert outbox.calls[0][1] == (1,)
    left = {"event_published": {"SENT"}, "event_failed_to_publish": {"WAITING"}}
    states = set(Event.objects.values_list("status", flat=True))
    if function == "bare" and not error:
        assert states == set()
    elif name == "event_permanently_failed":
        assert "DEAD" in states
    else:
        assert states == left[name]


def test_a_name_that_nobody_knows_sends_none(outbox: Any, sent: Any, settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"VERIFY_EVENTS_SIGNATURE": False}
    outbox.in_order(1)
    Event.objects.update(name="nobody.knows")
    relay()
    assert not any(sent.values())
