"""Methods of a Celery app, of an object, and of an instance of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from django.db import transaction

from jaiminho_celery import methods, registry, signals
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.exceptions import NameTaken, NotSerializable, UnknownReceiver
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from tests.testapp import announcers
from tests.testapp.announcers import Announcer, BranchCelery, QuietAnnouncer, ShopCelery
from tests.unit.conftest import messages, using_celery
from tests.unit.events import let_be_due, only, relay
from tests.unit.jaiminho.methods.common import commits
from tests.unit.jobs import received


@pytest.fixture
def shop() -> Iterator[ShopCelery]:
    """A Celery app of the project's own class, and the current one."""
    app = ShopCelery("shop", broker="memory://", set_as_current=False)
    with using_celery(app):
        yield app


def sent(app: Celery) -> list[Any]:
    """Take the messages of the test's own task; kicks of the relay lie beside them."""
    return [message for message in messages(app) if message.headers["task"] == "shop.pack"]


@commits
class TestAMethodOfACeleryApp:
    def test_runs_after_the_commit_on_the_app(self, shop: ShopCelery) -> None:
        with transaction.atomic():
            assert shop.announce({"type": "news"}, b=2) is None  # type: ignore[func-returns-value]
            assert announcers.calls == []
        assert announcers.calls == [(shop, "announce", ({"type": "news"},), {"b": 2})]

    def test_runs_in_the_hook_on_the_app_that_it_was_called_on(self, shop: ShopCelery) -> None:
        """In a thread of a web server Celery's current app may be its default one."""
        branch = BranchCelery("branch", broker="memory://", set_as_current=False)
        branch.announce(1)
        with using_celery(Celery("default", broker="memory://", set_as_current=False)):
            shop.announce(2)
        assert [(app, args) for app, _, args, _ in announcers.calls] == [
            (branch, (1,)),
            (shop, (2,)),
        ]

    def test_runs_in_the_relay_on_the_workers_current_app(self, shop: ShopCelery) -> None:
        shop.announce_in_order(1)
        assert "shop" not in only().body
        branch = BranchCelery("branch", broker="memory://", set_as_current=False)
        with using_celery(branch):
            relay()
        assert announcers.calls == [(branch, "announce_in_order", (1,), {})]

    def test_waits_for_a_worker_whose_app_has_it(
        self, shop: ShopCelery, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop.announce_in_order(1)
        with using_celery(Celery("other", broker="memory://", set_as_current=False)):
            relay()
        assert (only().status, only().error_count, announcers.calls) == ("WAITING", 0, [])
        assert "'other', has no method ShopCelery.announce_in_order" in caplog.text
        let_be_due()
        relay()
        assert announcers.calls == [(shop, "announce_in_order", (1,), {})]

    def test_keeps_its_original(self, shop: ShopCelery) -> None:
        assert shop.announce.original_func(shop, 1) == "done"  # type: ignore[attr-defined]
        assert announcers.calls == [(shop, "announce", (1,), {})]

    def test_tells_receivers_its_first_argument_and_not_its_app(self, shop: ShopCelery) -> None:
        with received(signals.event_published_by_events_relay) as seen:
            shop.announce_in_order({"type": "news"})
            shop.announce_in_order()
            relay()
        assert [got["event_payload"] for got in seen] == [{"type": "news"}, {}]
        assert all(got["sender"] is ShopCelery.announce_in_order.original_func for got in seen)  # type: ignore[attr-defined]


@commits
class TestABoundMethod:
    @pytest.mark.parametrize("in_order", [False, True])
    def test_of_an_app_sends_its_message(self, shop: ShopCelery, in_order: bool) -> None:
        decorate = save_to_outbox_stream("tasks", "keep-order") if in_order else save_to_outbox
        send = decorate(shop.send_task)
        with transaction.atomic():
            send("shop.pack", args=[7])
            assert sent(shop) == []
        relay()
        [message] = sent(shop)
        assert (message.headers["task"], message.payload[0]) == ("shop.pack", [7])

    def test_of_an_app_that_sends_through_the_outbox_sends_its_message_once(self) -> None:
        app = OutboxCelery("outbox", broker="memory://", set_as_current=False)
        with using_celery(app):
            sent(app)
            send = save_to_outbox(app.send_task)
            with transaction.atomic():
                send("shop.pack", args=[7])
            assert len(sent(app)) == 1
        assert not Event.objects.exists()

    def test_of_an_app_runs_in_the_relay_on_the_workers_current_app(self, shop: ShopCelery) -> None:
        send = save_to_outbox_stream("bound", "keep-order")(shop.bindable)
        branch = BranchCelery("branch", broker="memory://", set_as_current=False)
        send(1)
        with using_celery(branch):
            relay()
        assert announcers.calls == [(branch, "bindable", (1,), {})]

    def test_of_an_app_waits_for_a_worker_whose_app_has_it(self, shop: ShopCelery) -> None:
        save_to_outbox_stream("bound", "keep-order")(shop.bindable)(1)
        with using_celery(Celery("other", broker="memory://", set_as_current=False)):
            relay()
        assert (only().status, only().error_count, announcers.calls) == ("WAITING", 0, [])

    def test_of_a_class_runs_with_that_class(self) -> None:
        announce = save_to_outbox(QuietAnnouncer.plain)
        announcers.errors.append(ValueError("away"))
        announce(1)
        let_be_due()
        relay()
        assert announcers.calls == [(QuietAnnouncer, "plain", (1,), {})] * 2

    def test_of_an_instance_runs_on_the_one_that_was_registered(self) -> None:
        announcer = Announcer()
        announce = save_to_outbox_stream("bound", "keep-order")(announcer.bindable)
        announce(1)
        relay()
        assert announcers.calls == [(announcer, "bindable", (1,), {})]

    def test_keeps_its_original(self, shop: ShopCelery) -> None:
        for method in (shop.bindable, QuietAnnouncer.plain, Announcer().bindable):
            assert save_to_outbox(method).original_func == method

    @pytest.mark.parametrize(
        "pair",
        [
            (Announcer().bindable, Announcer().bindable),
            (Announcer.plain, QuietAnnouncer.plain),
            (
                ShopCelery("one", set_as_current=False).send_task,
                ShopCelery("two", set_as_current=False).send_task,
            ),
        ],
        ids=["instances", "classes", "apps"],
    )
    def test_does_not_take_the_name_of_anothers(self, pair: Any) -> None:
        first, second = pair
        decorated = save_to_outbox(first)
        with pytest.raises(NameTaken, match="name="):
            save_to_outbox(second)
        assert registry.find(registry.default_name(first)).func is decorated.original_func
        assert save_to_outbox(name="tests.second")(second)

    def test_can_be_registered_twice_if_it_is_the_same(self) -> None:
        announcer = Announcer()
        assert save_to_outbox(announcer.bindable)
        assert save_to_outbox(announcer.bindable)


@pytest.mark.django_db
class TestAMethodOfAnInstance:
    def test_is_refused_at_the_call(self, django_assert_num_queries: Any) -> None:
        with (
            django_assert_num_queries(0),
            pytest.raises(
                NotSerializable,
                match=r"^self: .*Announcer\.of_instance.*static method, a class method",
            ),
        ):
            Announcer().of_instance(1)

    def test_is_refused_even_if_json_could_take_it(self) -> None:
        class Order(dict[str, Any]):
            @save_to_outbox(name="tests.of_a_dict")
            def send(self) -> None: ...

        with pytest.raises(NotSerializable, match=r"^self: "):
            Order(id=1).send()

    def test_of_the_same_name_elsewhere_confuses_nobody(self) -> None:
        """The argument of a static method may have a method that is called alike."""
        with pytest.raises(NotSerializable, match=r"^args\[0\]"):
            Announcer.static(Announcer())
        with pytest.raises(NotSerializable, match=r"^args\[0\]"):
            Announcer.static(Announcer)


def test_a_row_that_names_nothing_runs_a_static_method() -> None:
    assert methods.find(Announcer.static.original_func, '{"args":[],"kwargs":{}}') is None  # type: ignore[attr-defined]


def test_what_is_unknown_is_said_by_name() -> None:
    with pytest.raises(UnknownReceiver, match=r"'shop:Gone'.*Announcer\.outside"):
        methods.find(Announcer.outside.original_func, '{"on":"shop:Gone"}')  # type: ignore[attr-defined]
