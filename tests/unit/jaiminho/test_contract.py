"""What the outbox promises to its users, name by name and behaviour by behaviour.

Public names only, and compact: the tests of the modules go deeper. What needs brokers, several
databases or real processes is in integration/test_outbox_contract.py.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

import jaiminho_celery
from jaiminho_celery import registry, signals
from jaiminho_celery.conf import settings as of_the_outbox
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.exceptions import NotSerializable, PayloadTooLarge
from jaiminho_celery.models import Event
from jaiminho_celery.schedule import beat_schedule
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from jaiminho_celery.signing import sign
from tests.testapp.outbox import Colour, ColourEncoder
from tests.unit.jobs import received

pytestmark = pytest.mark.django_db(transaction=True)

HOOK = ("event_published", "event_failed_to_publish", "event_permanently_failed")
MINUTE = timedelta(minutes=1)

DEFAULTS: dict[str, Any] = {
    "PERSIST_ALL_EVENTS": False,
    "DELETE_AFTER_SEND": False,
    "DEFAULT_ENCODER": DjangoJSONEncoder,
    "PUBLISH_STRATEGY": "publish-on-commit",
    "TIME_TO_DELETE": timedelta(days=14),
    "SIGN_EVENTS": True,
    "VERIFY_EVENTS_SIGNATURE": True,
    "NON_RETRYABLE_EXCEPTIONS": (),
    "DEFAULT_CAPTURE_EXCEPTION": None,
    "LEASE_SECONDS": 60,
    "MAX_PAYLOAD_BYTES": 256 * 1024,
}

INVALID: dict[str, Any] = {
    "PERSIST_ALL_EVENTS": "yes",
    "DELETE_AFTER_SEND": 2,
    "DEFAULT_ENCODER": dict,
    "PUBLISH_STRATEGY": "sometimes",
    "TIME_TO_DELETE": 14,
    "SIGN_EVENTS": None,
    "VERIFY_EVENTS_SIGNATURE": "no",
    "NON_RETRYABLE_EXCEPTIONS": KeyError,
    "DEFAULT_CAPTURE_EXCEPTION": 1,
    "LEASE_SECONDS": 0,
    "RELAY_INTERVAL_SECONDS": -1,
    "MAX_PAYLOAD_BYTES": 1.5,
    "DATABASES": "default",
    "LEASE_SECOND": 60,  # unknown
}


@pytest.fixture(autouse=True)
def _own_functions() -> Iterator[None]:
    """Forget the functions that a test decorates."""
    known = dict(registry._functions)
    yield
    registry._functions.clear()
    registry._functions.update(known)


def relay(*arguments: str) -> None:
    """Deliver what is due, as a person would."""
    call_command("events_relay", *arguments, stdout=StringIO())


def let_be_due() -> None:
    """Let back-offs be over, and the leases of whoever holds an event."""
    past = timezone.now() - MINUTE
    Event.objects.filter(sent_at=None).update(run_after=past)
    Event.objects.exclude(lease_until=None).update(lease_until=past)


def only() -> Any:
    """Return the one event that there is."""
    return Event.objects.get()


def name_it(name: str) -> Any:
    """Let the only event be one that was written for a function of that name."""
    event = only()
    event.name = name
    event.signature = sign(event)
    event.save(update_fields=["name", "signature"])
    return event


def payloads(outbox: Any) -> list[Any]:
    """Return the first argument of every call that was made, in order."""
    return [args[0] for _, args, _ in outbox.calls]


# The table, row by row.


def test_save_to_outbox(outbox: Any, settings: Any) -> None:
    outbox.bare({"order": 1})
    assert outbox.calls == [("bare", ({"order": 1},), {})]
    painted: list[Any] = []

    @save_to_outbox(
        using="default", encoder=ColourEncoder, name="contract.paint", aliases=["contract.before"]
    )
    def paint(colour: Any) -> None:
        painted.append(colour)

    with transaction.atomic():
        paint(Colour("red"))
        assert only().name == "contract.paint"
        assert painted == []
    assert painted == [{"colour": "red"}]

    settings.JAIMINHO_CONFIG = {"PUBLISH_STRATEGY": "keep-order"}
    paint(Colour("blue"))
    name_it("contract.before")
    relay()
    assert painted == [{"colour": "red"}, {"colour": "blue"}]


def test_save_to_outbox_stream(outbox: Any, settings: Any) -> None:
    parameters = inspect.signature(save_to_outbox_stream).parameters.values()
    assert [(one.name, one.default) for one in parameters] == [
        ("stream", inspect.Parameter.empty),
        ("overwrite_strategy_with", None),
        ("using", None),
        ("encoder", None),
        ("key", None),
        ("name", None),
        ("aliases", ()),
    ]
    told: list[Any] = []

    def tell(item: Any, level: int) -> None:
        told.append((item, level))

    in_order = save_to_outbox_stream(
        "contract",
        PublishStrategyType.KEEP_ORDER,
        "default",
        ColourEncoder,
        lambda item, level: level,
        "contract.tell",
        ["contract.told"],
    )(tell)
    in_order(Colour("red"), level=3)
    event = only()
    assert (event.stream, event.strategy, event.name) == ("contract", "keep-order", "contract.tell")
    assert (event.key, told) == ("3", [])
    relay("--stream", "contract")
    assert told == [({"colour": "red"}, 3)]

    settings.JAIMINHO_CONFIG = {"PUBLISH_STRATEGY": "keep-order"}
    outbox.mail("a")
    assert outbox.calls == [], "without a strategy of its own a stream has that of the settings"


def test_original_func(outbox: Any) -> None:
    for function in (outbox.bare, outbox.mail, outbox.in_order, outbox.Mailer.outside):
        assert function.original_func(1) == "done"
    assert payloads(outbox) == [1, 1, 1, 1]
    assert not Event.objects.exists()


def test_publish_strategy_type(outbox: Any) -> None:
    assert {one.name: one.value for one in PublishStrategyType} == {
        "PUBLISH_ON_COMMIT": "publish-on-commit",
        "KEEP_ORDER": "keep-order",
    }
    for given in (*PublishStrategyType, *map(str, PublishStrategyType)):
        send = save_to_outbox_stream("contract", given, name="contract.none")(_do_nothing)
        with transaction.atomic():
            send()
            assert only().strategy == given
            transaction.set_rollback(True)


def _do_nothing() -> None:
    pass


def test_event(outbox: Any) -> None:
    before = timezone.now() - timedelta(seconds=1)
    with transaction.atomic():
        outbox.mail("a")
        event = only()
        assert (event.stream, event.strategy) == ("mails", "publish-on-commit")
        assert before < event.created_at < event.lease_until
        assert event.sent_at is None
        transaction.set_rollback(True)
    outbox.errors["in_order"] = ConnectionError("away")
    outbox.in_order("b")
    relay()
    waiting = only()
    assert (waiting.stream, waiting.strategy) == ("orders", "keep-order")
    assert waiting.sent_at is None
    assert waiting.lease_until is None
    assert waiting.run_after > before
    outbox.errors.clear()
    let_be_due()
    relay()
    assert only().sent_at > before


def test_signals(outbox: Any, settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (KeyError,)}
    names = [*HOOK, *(f"{name}_by_events_relay" for name in HOOK)]
    with ExitStack() as stack:
        sent = {name: stack.enter_context(received(getattr(signals, name))) for name in names}
        errors: list[Exception | None] = [None, ValueError("away"), KeyError("never")]
        for name, error in zip(HOOK, errors, strict=True):
            for function, suffix in ((outbox.bare, ""), (outbox.in_order, "_by_events_relay")):
                outbox.errors = dict.fromkeys(["bare", "in_order"], error) if error else {}
                function({"is": name}, 2)
                relay()
                (got,) = sent[f"{name}{suffix}"]
                assert got["sender"] is function.original_func
                assert got["event_payload"] == {"is": name}
                assert isinstance(got["event_id"], int)
                left = Event.objects.values_list("pk", flat=True)
                assert list(left) in ([], [got["event_id"]])
                Event.objects.all().delete()
        assert [len(got) for got in sent.values()] == [1] * 6
        outbox.errors = {}
        outbox.bare(word="by name")
        assert sent["event_published"][-1]["event_payload"] == {}
    outbox.errors = {}


def test_tasks(outbox: Any, eager: Celery) -> None:
    sent_at = timezone.now() - timedelta(days=15)
    Event.objects.create(version=1, status="SENT", sent_at=sent_at)
    outbox.errors = dict.fromkeys(["bare", "in_order"], ConnectionError("away"))
    outbox.bare(1)
    outbox.in_order(2)
    outbox.errors = {}
    outbox.calls.clear()
    let_be_due()
    eager.tasks["jaiminho_celery.relay_events"].delay()
    assert sorted(payloads(outbox)) == [1, 2]
    assert Event.objects.count() == 3
    eager.tasks["jaiminho_celery.clean_events"].delay()
    assert [event.sent_at > sent_at for event in Event.objects.all()] == [True, True]


def test_beat_schedule(celery_in_memory: Celery, settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"RELAY_INTERVAL_SECONDS": 7}
    celery_in_memory.conf.beat_schedule = beat_schedule()
    try:
        scheduler = DatabaseScheduler(app=celery_in_memory, lazy=False)
        entries = {entry.task: entry.schedule for entry in scheduler.schedule.values()}
    finally:
        celery_in_memory.conf.beat_schedule = {}
    assert entries["jaiminho_celery.relay_events"].run_every == timedelta(seconds=7)
    assert "jaiminho_celery.clean_events" in entries
    stored = PeriodicTask.objects.filter(task__startswith="jaiminho_celery.", enabled=True)
    assert stored.count() == 2
    assert {entry["task"] for entry in beat_schedule().values()} <= set(celery_in_memory.tasks)


def test_commands(outbox: Any) -> None:
    """`--run-in-loop` is in the integration tests, as a process."""
    outbox.in_order(1)
    outbox.per_shop("a")
    outbox.per_shop("b")
    relay("--stream", "stock")
    assert payloads(outbox) == ["a", "b"]
    relay()
    assert payloads(outbox) == ["a", "b", 1]
    Event.objects.update(sent_at=timezone.now() - timedelta(days=15))
    outbox.in_order(2)
    call_command("event_cleaner", stdout=StringIO())
    assert only().sent_at is None


def test_jaiminho_config(settings: Any) -> None:
    assert not hasattr(settings, "JAIMINHO_CONFIG")
    assert {name: getattr(of_the_outbox, name) for name in DEFAULTS} == DEFAULTS
    assert registry.known_aliases() == ["default"]
    every = beat_schedule()["jaiminho_celery.relay_events"]["schedule"]
    assert every == of_the_outbox.RELAY_INTERVAL_SECONDS
    for key, value in INVALID.items():
        settings.JAIMINHO_CONFIG = {key: value}
        with pytest.raises(SystemCheckError, match=f"JAIMINHO_CONFIG.*{key}"):
            call_command("check", stdout=StringIO())
    settings.JAIMINHO_CONFIG = DEFAULTS | {"DATABASES": ["default"]}
    call_command("check", stdout=StringIO(), stderr=StringIO())


# The behaviours, by their numbers.


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
