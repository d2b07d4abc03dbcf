"""The table of public names, row by row."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from celery import Celery
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from jaiminho_celery import registry, signals
from jaiminho_celery.conf import settings as of_the_outbox
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.models import Event
from jaiminho_celery.schedule import beat_schedule
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from tests.testapp.outbox import Colour, ColourEncoder
from tests.unit.jaiminho.contract.common import let_be_due, name_it, only, payloads, relay
from tests.unit.jobs import received

pytestmark = pytest.mark.django_db(transaction=True)

HOOK = ("event_published", "event_failed_to_publish", "event_permanently_failed")

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
