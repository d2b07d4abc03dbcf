"""What the README of the original outbox shows, done here in the same words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from json import JSONEncoder
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import call_command
from django.dispatch import receiver
from django.utils import timezone

from jaiminho_celery import registry
from jaiminho_celery.exceptions import NotSerializable
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from jaiminho_celery.signals import event_failed_to_publish, event_published
from tests.testapp.outbox import Colour, ColourEncoder
from tests.unit.events import let_be_due, relay, statuses

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test register what it likes."""
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))


class TestMetrics:
    @pytest.fixture
    def counted(self) -> Iterator[list[str]]:
        """The receivers of the README, with something that counts."""
        names: list[str] = []
        metrics = SimpleNamespace(count=names.append)

        @receiver(event_published)
        def on_event_sent(sender, event_payload, **kwargs):  # type: ignore[no-untyped-def]
            metrics.count(f"event_sent_successfully {event_payload.get('type')}")

        @receiver(event_failed_to_publish)
        def on_event_send_error(sender, event_payload, **kwargs):  # type: ignore[no-untyped-def]
            metrics.count(f"event_failed {event_payload.get('type')}")

        yield names
        event_published.disconnect(on_event_sent)
        event_failed_to_publish.disconnect(on_event_send_error)

    def test_count_what_was_sent_and_what_failed_by_its_type(
        self, outbox: Any, counted: list[str]
    ) -> None:
        outbox.bare({"type": "created", "id": 1})
        outbox.errors["bare"] = ConnectionError("away")
        outbox.bare({"type": "changed", "id": 1})
        assert counted == ["event_sent_successfully created", "event_failed changed"]
        assert statuses() == ["WAITING"]

    def test_count_a_call_without_arguments_too(self, outbox: Any, counted: list[str]) -> None:
        outbox.bare()
        assert counted == ["event_sent_successfully None"]


class TestSettings:
    def test_events_that_were_sent_are_not_kept_by_default(
        self, outbox: Any, settings: Any
    ) -> None:
        settings.JAIMINHO_CONFIG = {"PERSIST_ALL_EVENTS": False}
        outbox.bare(1)
        outbox.errors["mail"] = ConnectionError("away")
        outbox.mail(1)
        assert statuses() == ["WAITING"]

    def test_all_events_are_kept_if_asked_for(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"PERSIST_ALL_EVENTS": True}
        outbox.bare(1)
        outbox.errors["mail"] = ConnectionError("away")
        outbox.mail(1)
        assert statuses() == ["SENT", "WAITING"]

    @pytest.mark.parametrize(
        ("config", "kept"),
        [
            ({}, [13]),
            ({"TIME_TO_DELETE": timedelta(days=7)}, []),
            ({"TIME_TO_DELETE": timedelta(days=30)}, [13, 15]),
        ],
    )
    def test_what_was_sent_before_the_given_interval_is_deleted(
        self, outbox: Any, settings: Any, config: dict[str, Any], kept: list[int]
    ) -> None:
        settings.JAIMINHO_CONFIG = {"PERSIST_ALL_EVENTS": True, **config}
        for days in (13, 15):
            outbox.bare(days)
            newest = Event.objects.latest("id")
            sent_at = timezone.now() - timedelta(days=days)
            Event.objects.filter(pk=newest.pk).update(sent_at=sent_at)
        call_command("event_cleaner")
        ages = [
            json.loads(body)["args"][0] for body in Event.objects.values_list("body", flat=True)
        ]
        assert ages == kept


class Shape:
    pass


class ShapeEncoder(JSONEncoder):
    def default(self, o: Any) -> Any:
        return {"shape": "round"} if isinstance(o, Shape) else super().default(o)


class LoudColourEncoder(JSONEncoder):
    def default(self, o: Any) -> Any:
        return {"LOUD": o.name} if isinstance(o, Colour) else super().default(o)


class TestAnEncoderInTheCall:
    def test_encodes_this_call_and_is_not_passed_on(self, outbox: Any) -> None:
        outbox.bare(Shape(), a=1, encoder=ShapeEncoder)
        assert outbox.calls == [("bare", ({"shape": "round"},), {"a": 1})]
        with pytest.raises(NotSerializable):
            outbox.bare(Shape())

    def test_goes_before_the_decorators(self, outbox: Any) -> None:
        outbox.paint(Colour("red"), encoder=LoudColourEncoder)
        outbox.paint(Colour("red"))
        payloads = [args[0] for _, args, _ in outbox.calls]
        assert payloads == [{"LOUD": "red"}, {"colour": "red"}]

    def test_goes_before_that_of_the_settings(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"DEFAULT_ENCODER": ColourEncoder}
        outbox.bare(Colour("red"), encoder=LoudColourEncoder)
        outbox.bare(Colour("red"))
        payloads = [args[0] for _, args, _ in outbox.calls]
        assert payloads == [{"LOUD": "red"}, {"colour": "red"}]

    def test_is_not_seen_by_the_key(self, outbox: Any) -> None:
        keys: list[Any] = []

        @save_to_outbox_stream("s", key=lambda *args, **more: keys.append(more), name="tests.keyed")
        def notify(payload: Any, **more: Any) -> None: ...

        notify(Shape(), a=1, encoder=ShapeEncoder)
        assert keys == [{"a": 1}]

    def test_has_done_its_work_when_the_relay_comes(self, outbox: Any) -> None:
        outbox.errors["bare"] = ConnectionError("away")
        outbox.bare(Shape(), encoder=ShapeEncoder)
        outbox.errors.clear()
        let_be_due()
        relay()
        assert outbox.calls == [("bare", ({"shape": "round"},), {})] * 2

    @pytest.mark.parametrize("value", ["utf-8", None, 5])
    def test_that_is_no_encoder_is_an_argument_like_others(self, outbox: Any, value: Any) -> None:
        outbox.bare("text", encoder=value)
        assert outbox.calls == [("bare", ("text",), {"encoder": value})]

    def test_leaves_the_function_its_own_default(self) -> None:
        seen: list[Any] = []

        @save_to_outbox(name="tests.own_default")
        def notify(payload: Any, encoder: Any = "its own") -> None:
            seen.append((payload, encoder))

        notify(Shape(), encoder=ShapeEncoder)
        assert seen == [({"shape": "round"}, "its own")]

    def test_is_refused_by_a_function_that_could_not_do_without(self) -> None:
        @save_to_outbox(name="tests.needs_encoder")
        def notify(payload: Any, encoder: Any) -> None: ...

        with pytest.raises(NotSerializable, match=r"^encoder: tests\.needs_encoder.*a default"):
            notify(1, encoder=ShapeEncoder)
        assert not Event.objects.exists()
