"""Class methods, and the classes that rows name."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
from django.db import transaction

from jaiminho_celery import methods, registry, signals
from jaiminho_celery.exceptions import NotSerializable, UnreadableEvent
from jaiminho_celery.models import Event
from jaiminho_celery.signing import sign
from tests.testapp import announcers
from tests.testapp.announcers import Announcer, LoudAnnouncer, QuietAnnouncer, Stranger
from tests.unit.events import let_be_due, only, relay, statuses
from tests.unit.jaiminho.methods.common import commits
from tests.unit.jobs import received

CLASSES = pytest.mark.parametrize("owner", [Announcer, QuietAnnouncer])
ORDERS = pytest.mark.parametrize("order", ["outside", "inside"])


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
