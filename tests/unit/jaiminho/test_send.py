"""The decorators: what a call writes, when it is delivered, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from django.db import connections, router, transaction

from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.exceptions import (
    NameTooLong,
    NotSerializable,
    PayloadTooLarge,
    UnknownAlias,
    UnknownStrategy,
)
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from tests import servers
from tests.unit.events import let_be_due, only, relay, statuses

Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]

commits = pytest.mark.django_db(transaction=True)

RICH: list[Any] = [
    datetime(2024, 7, 1, 12, tzinfo=UTC),
    date(2024, 7, 1),
    Decimal("1.10"),
    UUID(int=5),
    b"\x00\xff",
    "\x00\U0001f600",
    {1: {"__jaiminho__": [1]}},
]


class TestADecoratedFunction:
    @pytest.mark.parametrize("name", ["bare", "paint", "renamed", "mail", "in_order", "per_shop"])
    def test_keeps_its_original(self, outbox: Any, name: str) -> None:
        function = getattr(outbox, name)
        assert function.original_func(1, a=2) == "done"
        assert outbox.calls == [(name, (1,), {"a": 2})]
        assert function.__name__ == name

    @pytest.mark.django_db
    def test_returns_nothing_when_it_is_called(self, outbox: Any) -> None:
        assert outbox.bare(1) is None
        assert outbox.calls == []

    @commits
    @pytest.mark.parametrize("name", ["outside", "inside"])
    def test_may_be_static_in_a_class(self, outbox: Any, name: str) -> None:
        getattr(outbox.Mailer, name)(1)
        getattr(outbox.Mailer(), name)(2)
        assert outbox.calls == [(name, (1,), {}), (name, (2,), {})]


@pytest.mark.django_db
class TestTheRow:
    def test_of_publish_on_commit_is_leased_to_its_hook(self, outbox: Any) -> None:
        outbox.mail("a", b=1)
        event = only()
        assert (event.stream, event.strategy) == ("mails", "publish-on-commit")
        assert (event.status, event.lane) == ("PUBLISHING", None)
        assert event.lease_until - event.created_at < timedelta(seconds=61)
        assert event.lease_until > event.created_at
        assert event.sent_at is None
        assert relay() == 0

    def test_of_keep_order_waits_for_the_relay(self, outbox: Any) -> None:
        outbox.in_order("a")
        event = only()
        assert (event.stream, event.strategy) == ("orders", "keep-order")
        assert (event.status, event.lease_until, event.run_after) == ("WAITING", None, None)
        assert event.lane

    def test_of_a_plain_function_has_no_stream(self, outbox: Any) -> None:
        outbox.bare()
        assert (only().stream, only().key) == ("", "")

    def test_names_the_function_and_holds_no_code(self, outbox: Any) -> None:
        outbox.bare(1)
        assert only().name == "tests.testapp.outbox:bare"
        assert only().body == '{"args":[1],"kwargs":{}}'

    @pytest.mark.parametrize("strategy", list(PublishStrategyType))
    def test_has_the_strategy_of_the_settings(
        self, outbox: Any, settings: Any, strategy: PublishStrategyType
    ) -> None:
        settings.JAIMINHO_CONFIG = {"PUBLISH_STRATEGY": strategy.value}
        outbox.bare()
        outbox.mail()
        assert set(Event.objects.values_list("strategy", flat=True)) == {strategy.value}

    def test_has_the_strategy_of_its_own_stream_before_that(
        self, outbox: Any, settings: Any
    ) -> None:
        outbox.in_order()
        assert only().strategy == "keep-order"

    def test_has_its_key(self, outbox: Any) -> None:
        outbox.per_shop("a", 1)
        outbox.per_shop("b", 1)
        outbox.per_shop("a", 2)
        keys = Event.objects.order_by("id").values_list("key", "lane")
        (key_a, lane_a), (key_b, lane_b), again = keys
        assert (key_a, key_b, again) == ("a", "b", (key_a, lane_a))
        assert lane_a != lane_b

    def test_shares_no_lane_with_another_stream(self, outbox: Any) -> None:
        outbox.in_order("a")
        outbox.per_shop("")
        assert Event.objects.values("lane").distinct().count() == 2


@commits
class TestAfterTheCommit:
    def test_the_function_has_run(self, outbox: Any) -> None:
        with transaction.atomic():
            outbox.bare("a", b=1)
            assert outbox.calls == []
        assert outbox.calls == [("bare", ("a",), {"b": 1})]
        assert not Event.objects.exists()

    def test_the_function_has_run_without_a_transaction_too(self, outbox: Any) -> None:
        outbox.bare("a")
        assert outbox.calls == [("bare", ("a",), {})]

    def test_the_functions_have_run_in_the_order_of_their_calls(self, outbox: Any) -> None:
        with transaction.atomic():
            outbox.bare(1)
            outbox.mail(2)
            outbox.bare(3)
        assert [args for _, args, _ in outbox.calls] == [(1,), (2,), (3,)]

    def test_a_stream_in_order_is_left_to_the_relay(self, outbox: Any, kicked: Kicked) -> None:
        outbox.in_order(1)
        assert outbox.calls == []
        [(task, arguments)] = kicked()
        assert task == "jaiminho_celery.relay_events"
        assert arguments == {"using": "default", "lanes": [only().lane]}
        relay()
        assert outbox.calls == [("in_order", (1,), {})]

    def test_the_relay_is_told_once_per_lane(self, outbox: Any, kicked: Kicked) -> None:
        with transaction.atomic():
            for shop in "aabab":
                outbox.per_shop(shop)
        assert len(kicked()) == 2

    def test_a_nudge_carries_no_payload(self, outbox: Any, kicked: Kicked) -> None:
        outbox.per_shop("SECRET", "SECRET")
        assert "SECRET" not in repr(kicked())

    @pytest.mark.parametrize("value", RICH, ids=lambda value: type(value).__name__)
    def test_the_function_gets_what_was_sent(self, outbox: Any, value: Any) -> None:
        outbox.bare(value, named=value)
        outbox.in_order(value, named=value)
        relay()
        assert outbox.calls == [
            ("bare", (value,), {"named": value}),
            ("in_order", (value,), {"named": value}),
        ]

    def test_the_function_gets_what_the_encoder_made_in_the_hook_too(self, outbox: Any) -> None:
        outbox.paint(outbox.Colour("red"), (1, 2))
        assert outbox.calls == [("paint", ({"colour": "red"}, [1, 2]), {})]

    def test_the_function_gets_its_own_copy(self, outbox: Any) -> None:
        order = {"lines": [1]}
        with transaction.atomic():
            outbox.bare(order)
            order["lines"].append(2)
        assert outbox.calls == [("bare", ({"lines": [1]},), {})]

    def test_the_default_encoder_can_be_set_by_its_path(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"DEFAULT_ENCODER": "tests.testapp.outbox.ColourEncoder"}
        outbox.bare(outbox.Colour("red"))
        assert outbox.calls == [("bare", ({"colour": "red"},), {})]

    def test_an_earlier_callback_that_raises_loses_nothing(self, outbox: Any) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            transaction.on_commit(lambda: 1 / 0)
            outbox.bare(1)
        assert (outbox.calls, statuses()) == ([], ["PUBLISHING"])
        let_be_due()
        relay()
        assert outbox.calls == [("bare", (1,), {})]


@commits
class TestWhatIsRolledBack:
    @pytest.fixture(params=["bare", "in_order"])
    def function(self, request: pytest.FixtureRequest, outbox: Any) -> Any:
        return getattr(outbox, request.param)

    def delivered(self, outbox: Any) -> list[Any]:
        relay()
        return [args[0] for _, args, _ in outbox.calls]

    def test_is_never_sent(self, outbox: Any, function: Any) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            function("gone")
            raise ZeroDivisionError
        assert self.delivered(outbox) == []
        assert not Event.objects.exists()

    def test_with_a_savepoint_is_never_sent_and_the_rest_is(
        self, outbox: Any, function: Any
    ) -> None:
        with transaction.atomic():
            function("before")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                function("gone")
                with transaction.atomic():
                    function("gone too")
                raise ZeroDivisionError
            function("after")
        assert self.delivered(outbox) == ["before", "after"]

    def test_around_a_savepoint_that_was_released_is_never_sent(
        self, outbox: Any, function: Any
    ) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            with transaction.atomic():
                function("gone")
            raise ZeroDivisionError
        assert self.delivered(outbox) == []

    def test_in_an_inner_savepoint_leaves_the_outer_one(self, outbox: Any, function: Any) -> None:
        with transaction.atomic(), transaction.atomic():
            function("kept")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                function("gone")
                raise ZeroDivisionError
        assert self.delivered(outbox) == ["kept"]


@pytest.mark.django_db
class TestWhatIsRefusedAtTheCall:
    def test_is_what_can_not_be_encoded(self, outbox: Any) -> None:
        with pytest.raises(NotSerializable, match=r"args\[0\]\['customer'\].*object"):
            outbox.bare({"customer": object()})
        assert not Event.objects.exists()

    def test_is_what_is_too_large(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"MAX_PAYLOAD_BYTES": 100}
        outbox.bare("x" * 50)
        with pytest.raises(PayloadTooLarge, match="100"):
            outbox.bare("x" * 101)
        assert Event.objects.count() == 1

    def test_is_256_kibibytes_by_default(self, outbox: Any) -> None:
        with pytest.raises(PayloadTooLarge):
            outbox.bare("x" * 256 * 1024)
        outbox.bare("x" * 255 * 1024)

    def test_is_a_key_that_is_too_long(self, outbox: Any) -> None:
        outbox.per_shop("x" * 200)
        with pytest.raises(NameTooLong, match="200"):
            outbox.per_shop("x" * 201)
        assert Event.objects.count() == 1

    def test_is_a_call_that_has_no_key(self, outbox: Any) -> None:
        with pytest.raises(TypeError, match="shop"):
            outbox.per_shop()
        assert not Event.objects.exists()

    def test_leaves_the_callers_transaction_usable(self, outbox: Any) -> None:
        with transaction.atomic():
            with pytest.raises(NotSerializable):
                outbox.bare(object())
            outbox.bare(1)
        assert Event.objects.count() == 1


def a_function(*args: Any) -> None: ...


class TestWhatIsRefusedAtTheDecoration:
    def test_is_a_stream_that_is_too_long(self) -> None:
        with pytest.raises(NameTooLong, match="100"):
            save_to_outbox_stream("x" * 101)

    def test_is_an_unknown_strategy(self) -> None:
        with pytest.raises(UnknownStrategy, match=r"'in-order'.*publish-on-commit, keep-order"):
            save_to_outbox_stream("s", "in-order")

    def test_is_an_unknown_alias(self) -> None:
        for decorate in (save_to_outbox, lambda **more: save_to_outbox_stream("s", **more)):
            with pytest.raises(UnknownAlias, match=r"'nowhere'.*default"):
                decorate(using="nowhere")

    @pytest.mark.parametrize("names", [{"name": "x" * 256}, {"aliases": ["x" * 256]}])
    def test_is_a_name_that_is_too_long(self, names: dict[str, Any]) -> None:
        with pytest.raises(NameTooLong, match="255"):
            save_to_outbox(**names)(a_function)

    @pytest.mark.parametrize("encoder", ["json.JSONEncoder", object, 5])
    def test_is_an_encoder_that_is_none(self, encoder: Any) -> None:
        with pytest.raises(TypeError, match="encoder"):
            save_to_outbox(encoder=encoder, name="tests.bad_encoder")(a_function)

    def test_is_a_key_that_can_not_be_called(self) -> None:
        with pytest.raises(TypeError, match="key"):
            save_to_outbox_stream("s", key="shop", name="tests.bad_key")(a_function)  # type: ignore[arg-type]

    def test_is_not_a_strategy_by_its_value(self) -> None:
        assert save_to_outbox_stream("s", "keep-order")


class TestTheDatabase:
    @pytest.fixture
    def other(self, monkeypatch: pytest.MonkeyPatch) -> str:
        servers.require("postgresql")
        return "postgresql"

    @pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
    def test_is_the_one_that_the_router_writes_events_to(
        self, other: str, outbox: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(router), "db_for_write", lambda *args, **hints: other)
        outbox.in_order(1)
        assert Event.objects.using(other).count() == 1
        assert not Event.objects.using("default").exists()

    @pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
    def test_that_is_in_no_transaction_while_another_is_gets_a_warning(
        self, other: str, outbox: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with transaction.atomic(using=other):
            outbox.bare(1)
        assert "'default', which is in no transaction, while 'postgresql' is" in caplog.text

    @pytest.mark.django_db(transaction=True, databases=["default", "postgresql"])
    def test_that_is_in_a_transaction_too_gets_none(
        self, other: str, outbox: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with transaction.atomic(using=other), transaction.atomic():
            outbox.bare(1)
        outbox.bare(2)
        assert "in no transaction" not in caplog.text
        assert connections["default"].vendor == "sqlite"


@commits
class TestEagerly:
    def test_a_stream_in_order_is_delivered_with_the_commit(
        self, eager: Celery, outbox: Any
    ) -> None:
        with transaction.atomic():
            outbox.in_order(1)
            outbox.in_order(2)
        assert [args for _, args, _ in outbox.calls] == [(1,), (2,)]
        assert statuses() == ["SENT", "SENT"]

    def test_a_chain_of_events_that_each_send_the_next_does_not_recurse(
        self, eager: Celery, outbox: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Chain(list[Any]):
            def append(self, call: Any) -> None:
                super().append(call)
                if len(self) < 200:
                    outbox.per_shop(str(len(self)))

        monkeypatch.setattr(outbox, "calls", Chain())
        outbox.per_shop("0")
        assert len(outbox.calls) == 200
        assert statuses() == ["SENT"] * 200

    def test_a_failure_does_not_recurse(self, eager: Celery, outbox: Any) -> None:
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        assert len(outbox.calls) == 1
        assert (only().status, only().error_count) == ("WAITING", 1)
