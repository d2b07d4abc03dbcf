"""Names and functions: what is registered, what is imported, and what waits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.testapp
from jaiminho_celery import registry
from jaiminho_celery.exceptions import (
    NameTaken,
    NotRegistrable,
    UnknownFunction,
    UnknownStream,
)
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox
from jaiminho_celery.signing import sign
from tests.unit.events import let_be_due, only, relay


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test register what it likes."""
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))


def test_the_outbox_module_of_an_installed_app_is_found() -> None:
    assert registry.find("tests.testapp.outbox:bare").name == "tests.testapp.outbox:bare"


def test_the_name_of_a_function_is_its_module_and_qualified_name() -> None:
    assert registry.find("tests.testapp.outbox:Mailer.outside")


def test_a_function_can_choose_its_name_and_keep_its_former_ones(outbox: Any) -> None:
    for name in ("tests.renamed", "tests.former"):
        assert registry.find(name).func is outbox.renamed.original_func
    with pytest.raises(UnknownFunction):
        registry.find("tests.testapp.outbox:renamed")


def test_a_name_belongs_to_one_function() -> None:
    with pytest.raises(NameTaken, match=r"tests\.renamed.*tests\.testapp\.outbox\.renamed"):
        save_to_outbox(name="tests.renamed")(len_of)
    with pytest.raises(NameTaken):
        save_to_outbox(aliases=["tests.renamed"])(len_of)


def test_a_module_that_is_loaded_again_may_register_again(outbox: Any) -> None:
    save_to_outbox(outbox.bare.original_func)


def len_of(value: object) -> None: ...


async def send_later(value: object) -> None: ...


def send_in_pieces(value: object) -> Iterator[int]:
    yield 1


async def send_in_pieces_later(value: object) -> Any:
    yield 1


class Callable_:
    def __call__(self) -> None: ...


class TestWhatCanNotBeRegistered:
    def test_a_lambda(self) -> None:
        with pytest.raises(NotRegistrable, match="<lambda>"):
            save_to_outbox(lambda: None)

    def test_a_function_inside_a_function(self) -> None:
        def inner() -> None: ...

        with pytest.raises(NotRegistrable, match="top of its module"):
            save_to_outbox(inner)

    def test_an_object_without_a_name(self) -> None:
        with pytest.raises(NotRegistrable, match="no name"):
            save_to_outbox(Callable_())

    @pytest.mark.parametrize(
        "function", [send_later, send_in_pieces, send_in_pieces_later], ids=lambda f: f.__name__
    )
    def test_a_function_whose_call_would_not_run_it(self, function: Any) -> None:
        """Calling it makes a coroutine or a generator: nothing would be sent, and lost."""
        with pytest.raises(NotRegistrable):
            save_to_outbox(function)

    def test_unless_a_name_is_given(self) -> None:
        @save_to_outbox(name="tests.inner")
        def inner() -> None: ...

        assert registry.find("tests.inner").func is inner.original_func


def test_an_unknown_stream_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(UnknownStream, match=r"'nope'.*'mails'.*'orders'"):
        registry.require_stream("nope", set())
    registry.require_stream("mails", set())
    registry.require_stream("only in rows", {"only in rows"})


class TestTheDatabasesToRelay:
    def test_are_the_default_and_every_registered_one(self) -> None:
        assert registry.known_aliases() == ["default"]
        registry.register(registry.OutboxFunction(len_of, name="tests.other", using="other"))
        assert registry.known_aliases() == ["default", "other"]

    def test_are_those_of_the_settings_if_given(self, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"DATABASES": []}
        assert registry.known_aliases() == []


SOURCE = """
from jaiminho_celery.send import save_to_outbox
from tests.testapp.outbox import calls

@save_to_outbox
def late(*args):
    calls.append(("late", args, {}))
"""


@pytest.mark.django_db
class TestANameThatIsNotKnownYet:
    @pytest.fixture(autouse=True)
    def modules(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outbox: Any
    ) -> Iterator[None]:
        """Modules that nobody has imported yet: inside an installed app, and outside."""
        inside, outside = tmp_path / "inside", tmp_path / "outside"
        for directory in (inside, outside):
            directory.mkdir()
        (inside / "late_module.py").write_text(SOURCE)
        (inside / "broken_module.py").write_text("raise RuntimeError('at import')")
        (inside / "unfinished_module.py").write_text("def late(:")
        (inside / "needy_module.py").write_text("import no_such_package_anywhere")
        (inside / "quiet_module.py").write_text("def late(*args): raise AssertionError")
        (outside / "stranger_module.py").write_text(SOURCE)
        (outside / "tests_testapp_stranger.py").write_text(SOURCE)
        monkeypatch.setattr(tests.testapp, "__path__", [*tests.testapp.__path__, str(inside)])
        monkeypatch.syspath_prepend(str(outside))
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            del sys.modules[name]

    def write(self, outbox: Any, name: str) -> None:
        """Write an event that carries `name`, rightly signed."""
        outbox.bare(1)
        event = only()
        event.name = name
        Event.objects.update(name=name, signature=sign(event))
        let_be_due()

    def test_is_looked_for_in_the_module_that_it_gives(self, outbox: Any) -> None:
        self.write(outbox, "tests.testapp.late_module:late")
        relay()
        assert outbox.calls == [("late", (1,), {})]

    @pytest.mark.parametrize(
        "name",
        [
            "tests.testapp.late_module:other",
            "tests.testapp.no_such_module:late",
            "tests.testapp.broken_module:late",
            "tests.testapp.unfinished_module:late",
            "tests.testapp.needy_module:late",
            "tests.testapp.quiet_module:late",
            "stranger_module:late",
            "tests_testapp_stranger:late",
            "tests.testapp_stranger:late",
            "no colon",
            ":",
            "",
            "tests.testapp.:late",
            "tests.testapp...conftest:late",
            ".:x",
            "os:system",
            "os.path:join",
            "tests.testapp.models:Note.objects.all",
        ],
    )
    def test_waits_and_counts_no_attempt(
        self, outbox: Any, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.write(outbox, name)
        with caplog.at_level(logging.WARNING):
            assert relay() == 1
        event = only()
        assert (event.status, event.error_count, outbox.calls) == ("WAITING", 0, [])
        assert event.run_after is not None
        assert f"event {event.pk}" in caplog.text
        assert relay() == 0  # and not in a circle

    @pytest.mark.parametrize("name", ["stranger_module:late", "tests_testapp_stranger:late"])
    def test_imports_nothing_outside_of_the_installed_apps(self, outbox: Any, name: str) -> None:
        self.write(outbox, name)
        relay()
        assert name.partition(":")[0] not in sys.modules

    def test_imports_nothing_for_a_row_whose_signature_does_not_verify(self, outbox: Any) -> None:
        outbox.bare(1)
        Event.objects.update(name="tests.testapp.late_module:late")
        let_be_due()
        relay()
        assert "tests.testapp.late_module" not in sys.modules
        assert only().status == "DEAD"

    def test_is_delivered_once_it_is_known(self, outbox: Any) -> None:
        self.write(outbox, "tests.from_the_next_release")
        relay()
        registry.register(
            registry.OutboxFunction(outbox.bare.original_func, name="tests.from_the_next_release")
        )
        let_be_due()
        relay()
        assert outbox.calls == [("bare", (1,), {})]

    def test_holds_its_lane_and_no_other(self, outbox: Any) -> None:
        for shop in "abab":
            outbox.per_shop(shop)
        first = Event.objects.order_by("id")[0]
        first.name = "tests.from_the_next_release"
        Event.objects.filter(pk=first.pk).update(name=first.name, signature=sign(first))
        relay()
        assert [args for _, args, _ in outbox.calls] == [("b",), ("b",)]
