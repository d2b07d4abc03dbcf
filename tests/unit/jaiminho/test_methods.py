"""Methods behind the outbox: with which class, or on which app, they run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from django.db import transaction

from jaiminho_celery import methods, registry, signals
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.exceptions import (
    NameTaken,
    NotSerializable,
    UnknownReceiver,
    UnreadableEvent,
)
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from jaiminho_celery.signing import sign
from tests.testapp import announcers
from tests.testapp.announcers import (
    Announcer,
    BranchCelery,
    LoudAnnouncer,
    QuietAnnouncer,
    ShopCelery,
    Stranger,
)
from tests.unit.conftest import messages, using_celery
from tests.unit.events import let_be_due, only, relay, statuses
from tests.unit.jobs import received

commits = pytest.mark.django_db(transaction=True)

CLASSES = pytest.mark.parametrize("owner", [Announcer, QuietAnnouncer])
ORDERS = pytest.mark.parametrize("order", ["outside", "inside"])


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No calls, no errors, and a registry to write to."""
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))
    announcers.calls.clear()
    announcers.errors.clear()
    yield
    announcers.calls.clear()
    announcers.errors.clear()


@pytest.fixture
def shop() -> Iterator[ShopCelery]:
    """A Celery app of the project's own class, and the current one."""
    app = ShopCelery("shop", broker="memory://", set_as_current=False)
    with using_celery(app):
        yield app


def sent(app: Celery) -> list[Any]:
    """Take the messages of the test's own task; kicks of the relay lie beside them."""
    return [message for message in messages(app) if message.headers["task"] == "shop.pack"]


def rewrite(**columns: str) -> None:
    """Change the one event as a newer or older release would have written it: signed."""
    event = only()
    for name, value in columns.items():
        setattr(event, name, value)
    Event.objects.update(**columns, signature=sign(event))


@commits
class TestAClassMethod:
    @CLASSES
    @ORDERS
    def test_runs_after_the_commit_with_the_class_that_it_was_called_on(
        self, owner: Any, order: str
    ) -> None:
        with transaction.atomic():
            assert getattr(owner, order)(1, b=2) is None
            assert announcers.calls == []
        assert announcers.calls == [(owner, order, (1,), {"b": 2})]
        assert not Event.objects.exists()

    @CLASSES
    @ORDERS
    def test_runs_in_the_relay_with_the_class_that_it_was_called_on(
        self, owner: Any, order: str
    ) -> None:
        announcers.errors.append(ValueError("away"))
        getattr(owner, order)(1, b=2)
        let_be_due()
        relay()
        assert announcers.calls == [(owner, order, (1,), {"b": 2})] * 2
        assert statuses() == ["SENT"]

    @ORDERS
    def test_keeps_the_order_of_its_stream_and_key_across_subclasses(self, order: str) -> None:
        method = f"{order}_in_order"
        for number, owner in enumerate((Announcer, QuietAnnouncer, Announcer)):
            getattr(owner, method)("Graz", number)
            getattr(owner, method)("Wien", number)
        keys = Event.objects.values_list("key", flat=True)
        assert set(keys) == {"Graz", "Wien"}  # the key is made of the arguments, not of the class
        relay()
        for place in ("Graz", "Wien"):
            assert [
                (owner, args) for owner, _, args, _ in announcers.calls if args[0] == place
            ] == [
                (Announcer, (place, 0)),
                (QuietAnnouncer, (place, 1)),
                (Announcer, (place, 2)),
            ]

    def test_of_a_base_can_be_called_through_super(self) -> None:
        LoudAnnouncer.outside(1)
        assert announcers.calls == [(LoudAnnouncer, "outside", (1,), {"loud": True})]

    def test_through_super_runs_in_the_relay_with_the_subclass(self) -> None:
        announcers.errors.append(ValueError("away"))
        LoudAnnouncer.outside(1)
        let_be_due()
        relay()
        assert announcers.calls == [(LoudAnnouncer, "outside", (1,), {"loud": True})] * 2

    def test_can_be_called_on_an_instance(self) -> None:
        QuietAnnouncer().inside(1)
        assert announcers.calls == [(QuietAnnouncer, "inside", (1,), {})]

    def test_of_a_class_inside_a_class_is_found(self) -> None:
        announcers.errors.append(ValueError("away"))
        Announcer.Inner.nested(1)
        let_be_due()
        relay()
        assert announcers.calls == [(Announcer.Inner, "nested", (1,), {})] * 2

    @ORDERS
    def test_keeps_its_original(self, order: str) -> None:
        original = getattr(Announcer, order).original_func
        assert original(QuietAnnouncer, 1) == "done"
        assert announcers.calls == [(QuietAnnouncer, order, (1,), {})]
        assert not Event.objects.exists()

    def test_writes_its_class_as_text_beside_the_arguments(self) -> None:
        QuietAnnouncer.inside_in_order("Graz")
        assert only().name == "tests.testapp.announcers:Announcer.inside_in_order"
        assert only().body == (
            '{"args":["Graz"],"kwargs":{},"on":"tests.testapp.announcers:QuietAnnouncer"}'
        )

    @ORDERS
    def test_tells_receivers_its_first_argument_and_not_its_class(self, order: str) -> None:
        method = getattr(QuietAnnouncer, order)
        with received(signals.event_published) as seen:
            method({"type": "news"}, 2)
            method(word=1)
        assert [got["event_payload"] for got in seen] == [{"type": "news"}, {}]
        assert all(got["sender"] is method.original_func for got in seen)

    def test_of_a_class_that_nobody_can_find_again_is_refused_at_the_call(self) -> None:
        class Local(Announcer):
            pass

        with pytest.raises(NotSerializable, match=r"cls: .*Local.*top of its module"):
            Local.outside(1)
        assert not Event.objects.exists()

    def test_of_a_class_that_hides_behind_another_name_is_refused_at_the_call(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(announcers, "QuietAnnouncer", Stranger)
        with pytest.raises(NotSerializable, match=r"cls: .*QuietAnnouncer"):
            QuietAnnouncer.outside(1)
        assert not Event.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_decorated_by_others_in_between_is_recognized(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`@classmethod @other @save_to_outbox`: the class holds the other's wrapper."""
        from functools import wraps

        saved = vars(Announcer)["outside"].__func__

        @wraps(saved)
        def other(*args: Any, **kwargs: Any) -> Any:
            return saved(*args, **kwargs)

        monkeypatch.setattr(Announcer, "outside", classmethod(other))
        QuietAnnouncer.outside(1)
        assert announcers.calls == [(QuietAnnouncer, "outside", (1,), {})]


@commits
class TestAClassThatARowNames:
    @pytest.fixture(autouse=True)
    def event(self) -> None:
        Announcer.outside_in_order("Graz", 1)

    def name_class(self, path: object) -> None:
        text = only().body.replace('"tests.testapp.announcers:Announcer"', str(path))
        rewrite(body=text)

    @pytest.mark.parametrize(
        "path",
        [
            "tests.testapp.announcers:NextRelease",
            "tests.testapp.announcers:Stranger",  # another's method of that name
            "tests.testapp.announcers:Announcer.Inner",
            "tests.testapp.announcers:Announcer.outside_in_order",
            "tests.testapp.announcers:Celery",
            "tests.testapp.announcers:calls",
            "tests.testapp.announcers:",
            "tests.testapp.next_release:Announcer",
            "builtins:dict",
            "os:system",
            "no colon",
            "",
            ":",
            "app",
        ],
    )
    def test_and_that_lacks_the_method_lets_it_wait_and_counts_no_attempt(
        self, path: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.name_class(f'"{path}"')
        with caplog.at_level(logging.WARNING):
            assert relay() == 1
        event = only()
        assert (event.status, event.error_count, announcers.calls) == ("WAITING", 0, [])
        assert event.run_after is not None
        assert f"event {event.pk}" in caplog.text
        assert "outside_in_order" in caplog.text
        assert relay() == 0

    def test_and_that_appears_later_gets_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name_class('"tests.testapp.announcers:Renamed"')
        relay()
        monkeypatch.setattr(announcers, "Renamed", QuietAnnouncer, raising=False)
        let_be_due()
        relay()
        assert announcers.calls == [(QuietAnnouncer, "outside_in_order", ("Graz", 1), {})]

    def test_is_imported_if_its_module_lies_in_an_installed_app(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        import tests.testapp

        (tmp_path / "late_announcer.py").write_text(
            "from tests.testapp.announcers import Announcer\n\n"
            "class LateAnnouncer(Announcer): pass\n"
        )
        monkeypatch.setattr(tests.testapp, "__path__", [*tests.testapp.__path__, str(tmp_path)])
        self.name_class('"tests.testapp.late_announcer:LateAnnouncer"')
        try:
            relay()
            [(owner, *_)] = announcers.calls
            assert owner.__name__ == "LateAnnouncer"
        finally:
            sys.modules.pop("tests.testapp.late_announcer", None)

    def test_is_not_imported_if_its_module_lies_elsewhere(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        (tmp_path / "strange_announcer.py").write_text(
            "from tests.testapp.announcers import Announcer\n\nclass Strange(Announcer): pass\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        self.name_class('"strange_announcer:Strange"')
        relay()
        assert "strange_announcer" not in sys.modules
        assert (only().status, announcers.calls) == ("WAITING", [])

    def test_is_not_even_looked_for_if_the_signature_does_not_verify(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked_for: list[str] = []
        monkeypatch.setattr(methods, "_class_at", looked_for.append)
        Event.objects.update(body=only().body.replace("Announcer", "LoudAnnouncer"))
        relay()
        assert (only().status, looked_for, announcers.calls) == ("DEAD", [], [])

    def test_is_looked_for_without_running_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module's `__getattr__` could do anything."""
        asked: list[str] = []
        monkeypatch.setattr(announcers, "__getattr__", asked.append, raising=False)
        self.name_class('"tests.testapp.announcers:NextRelease"')
        relay()
        assert asked == []

    @pytest.mark.parametrize("path", ["5", "[]", '{"class":"x"}'])
    def test_has_to_be_a_text(self, path: str) -> None:
        self.name_class(path)
        relay()
        assert (only().status, announcers.calls) == ("DEAD", [])

    def test_is_missing_from_rows_of_before_it_became_a_class_method(self) -> None:
        """The first argument must not pass for the class."""
        rewrite(body='{"args":["Graz",1],"kwargs":{}}')
        relay()
        assert (only().status, only().error_count, announcers.calls) == ("WAITING", 0, [])

    def test_is_left_out_if_the_method_became_a_function(self, outbox: Any) -> None:
        function = outbox.bare.original_func
        registry._functions[only().name] = registry.OutboxFunction(function, name="tests.moved")
        relay()
        assert outbox.calls == [("bare", ("Graz", 1), {})]

    def test_holds_its_key_and_no_other(self) -> None:
        self.name_class('"tests.testapp.announcers:NextRelease"')
        Announcer.outside_in_order("Graz", 2)
        Announcer.outside_in_order("Wien", 3)
        relay()
        assert [args for _, _, args, _ in announcers.calls] == [("Wien", 3)]


@pytest.mark.parametrize("body", ["", "[", "[]", "5", "null"])
def test_a_body_that_can_not_be_read_names_no_class(body: str) -> None:
    with pytest.raises(UnreadableEvent):
        methods.find(Announcer.outside.original_func, body)  # type: ignore[attr-defined]


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
