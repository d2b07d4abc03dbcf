"""The behaviours, by their numbers."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

import jaiminho_celery
from jaiminho_celery import signals
from jaiminho_celery.exceptions import NotSerializable, PayloadTooLarge
from jaiminho_celery.models import Event
from tests.testapp.outbox import Colour, ColourEncoder
from tests.unit.jaiminho.contract.common import MINUTE, let_be_due, name_it, only, payloads, relay
from tests.unit.jobs import received

pytestmark = pytest.mark.django_db(transaction=True)


def test_behaviour_1_nothing_committed_is_lost_and_nothing_rolled_back_is_sent(
    outbox: Any, settings: Any
) -> None:
    """A process that is killed, and all databases: see the integration tests."""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        outbox.bare("never")
        outbox.in_order("never")
        raise ZeroDivisionError
    with transaction.atomic():
        outbox.bare("first")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            outbox.bare("never")
            outbox.in_order("never")
            raise ZeroDivisionError
        outbox.in_order("second")
        assert Event.objects.count() == 2, "the rows are written in the caller's transaction"
    relay()
    assert payloads(outbox) == ["first", "second"]
    assert only().sent_at, "what a hook published is gone, what was relayed waits for the cleaner"

    settings.JAIMINHO_CONFIG = {"PERSIST_ALL_EVENTS": True, "DELETE_AFTER_SEND": True}
    Event.objects.all().delete()
    outbox.bare("kept")
    outbox.in_order("deleted")
    relay()
    assert payloads(outbox)[2:] == ["kept", "deleted"]
    assert (only().strategy, only().sent_at is None) == ("publish-on-commit", False)


def test_behaviour_2_publish_on_commit_runs_right_after_the_commit_and_is_repeated_by_the_relay(
    outbox: Any, celery_in_memory: Celery
) -> None:
    outbox.errors["bare"] = ConnectionError("away")
    with received(signals.event_failed_to_publish) as failed, transaction.atomic():
        outbox.bare(1)
        assert outbox.calls == []
    assert payloads(outbox) == [1], "it ran in this process, and what it raised did not come here"
    assert [one["event_payload"] for one in failed] == [1]
    assert only().error_count == 1
    assert only().run_after > only().created_at, "a back-off"
    Event.objects.update(run_after=timezone.now() + MINUTE)
    outbox.errors.clear()
    beat = celery_in_memory.tasks["jaiminho_celery.relay_events"]
    assert beat(force=True) == 0
    let_be_due()
    assert beat(force=True) == 1
    assert payloads(outbox) == [1, 1]
    assert only().sent_at


def test_behaviour_3_keep_order_runs_in_the_relay_only_and_a_failing_head_holds_its_own_key(
    outbox: Any, settings: Any
) -> None:
    """Commits that arrive late need several connections: see the integration tests."""
    settings.JAIMINHO_CONFIG = {
        "NON_RETRYABLE_EXCEPTIONS": (KeyError,),
        "BACKOFF_BASE_SECONDS": 600,
    }
    for shop in ("a", "b", "a", "b"):
        outbox.per_shop(shop, Event.objects.count())
    assert outbox.calls == []
    heads: dict[str, Exception] = {"a": KeyError("never"), "b": ConnectionError("away")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "_note", lambda _, args, __: _raise(heads.get(args[0])))
        relay()
    outbox.per_shop("c", 4)
    relay()
    assert [args for _, args, _ in outbox.calls] == [("c", 4)], "a is dead, b pauses"
    Event.objects.filter(key="b").update(run_after=timezone.now() - MINUTE)
    relay()
    assert [args for _, args, _ in outbox.calls[1:]] == [("b", 1), ("b", 3)]
    dead = Event.objects.get(status="DEAD")
    assert (dead.key, Event.objects.filter(sent_at=None).count()) == ("a", 2)
    dead.replay()
    relay()
    assert [args for _, args, _ in outbox.calls[3:]] == [("a", 0), ("a", 2)]


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


@pytest.mark.parametrize(("decide", "left"), [("skip", 1), ("discard", 0)])
def test_behaviour_3_a_dead_letter_holds_its_key_until_it_is_decided_about(
    outbox: Any, settings: Any, decide: str, left: int
) -> None:
    settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (KeyError,), "DELETE_AFTER_SEND": True}
    outbox.errors["in_order"] = KeyError("never")
    outbox.in_order("dead")
    relay()
    outbox.errors.clear()
    outbox.in_order("behind")
    relay()
    assert payloads(outbox) == ["dead"]
    getattr(Event.objects.get(status="DEAD"), decide)()
    relay()
    assert payloads(outbox) == ["dead", "behind"]
    assert Event.objects.count() == left


def test_behaviour_4_dead_letters_are_kept_and_everything_else_is_retried_for_ever(
    outbox: Any, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (KeyError,)}
    outbox.errors["bare"] = KeyError("never")
    outbox.bare("not retryable")
    outbox.errors["mail"] = ValueError("away")
    outbox.mail("tampered with")
    Event.objects.filter(stream="mails").update(body='{"args":["other"],"kwargs":{}}')
    for _ in range(3):
        let_be_due()
        relay()
    assert payloads(outbox) == ["not retryable", "tampered with"], "neither was tried again"
    assert set(Event.objects.values_list("status", flat=True)) == {"DEAD"}
    call_command("event_cleaner", stdout=StringIO())
    outbox.errors.clear()
    Event.objects.get(stream="").replay()
    relay()
    assert payloads(outbox)[2:] == ["not retryable"]

    outbox.errors["in_order"] = ValueError("away")
    outbox.in_order("for ever")
    for _ in range(30):
        let_be_due()
        relay()
    for_ever = Event.objects.get(stream="orders")
    assert (for_ever.status, for_ever.error_count) == ("WAITING", 30)
    settings.JAIMINHO_CONFIG = {"MAX_ATTEMPTS": 31}
    let_be_due()
    relay()
    assert Event.objects.get(stream="orders").status == "DEAD"


def test_behaviour_5_a_name_that_nobody_knows_waits_and_nothing_else_is_imported(
    outbox: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Discovery and imports inside installed apps need new processes: see the integration tests."""
    assert "this" not in sys.modules
    outbox.in_order(1)
    for name in ("tests.testapp.outbox:not_yet", "this:main", "os:system"):
        event = name_it(name)
        let_be_due()
        caplog.clear()
        relay()
        assert (only().status, only().error_count) == ("WAITING", 0)
        assert re.search(rf"event {event.pk}\b.*waits for a worker that knows it", caplog.text)
    assert "this" not in sys.modules


class Opaque:
    """No encoder knows this."""


@pytest.mark.parametrize("function", ["bare", "in_order"])
def test_behaviour_6_payloads_are_json_and_come_back_equal(
    outbox: Any, settings: Any, function: str
) -> None:
    send = getattr(outbox, function)
    values = [
        "\x00 \U0001f600 \\u0000",
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4),
        date(2026, 1, 2),
        time(3, 4, 5, 6),
        Decimal("1.10"),
        UUID(int=7),
        b"\x00\xff",
    ]
    with transaction.atomic():
        send(values, **{"nested": {"values": values}})
        assert json.loads(only().body)["args"], "a row holds JSON"
    relay()
    assert outbox.calls == [(function, (values,), {"nested": {"values": values}})]
    assert [type(value) for value in payloads(outbox)[0]] == [type(value) for value in values]
    send((1, (2, 3)))
    settings.JAIMINHO_CONFIG = {"DEFAULT_ENCODER": ColourEncoder}
    send(Colour("red"))
    relay()
    assert payloads(outbox)[1:] == [[1, [2, 3]], {"colour": "red"}]

    Event.objects.all().delete()
    settings.JAIMINHO_CONFIG = {"MAX_PAYLOAD_BYTES": 10}
    with pytest.raises(NotSerializable):
        send(Opaque())
    with pytest.raises(PayloadTooLarge):
        send("far too long")
    assert not Event.objects.exists()


def test_behaviour_6_nothing_is_pickled() -> None:
    unsafe = re.compile(r"^\s*(import|from) (pickle|dill|cloudpickle|marshal|shelve)\b", re.M)
    modules = list(Path(jaiminho_celery.__file__).parent.rglob("*.py"))
    assert len(modules) > 30
    assert [module.name for module in modules if unsafe.search(module.read_text())] == []
