"""Bad input: each a named exception with a message that helps, before anything is written."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from json import JSONEncoder
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import router

from jaiminho_celery import exceptions, registry
from jaiminho_celery.exceptions import (
    InvalidName,
    KeyFailed,
    NameTaken,
    NameTooLong,
    NotRegistrable,
    NotSerializable,
    OutboxError,
    PayloadTooLarge,
    UnknownAlias,
    UnknownFunction,
    UnknownStrategy,
)
from jaiminho_celery.models import Event
from jaiminho_celery.registry import OutboxFunction
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test register what it likes."""
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))


def publish(*args: Any, **kwargs: Any) -> None: ...


async def publish_later() -> None: ...


def publish_in_pieces() -> Iterator[int]:
    yield 1


class Publisher:
    """An instance of it can be called, but has no name."""

    def __call__(self) -> None: ...

    @property
    def publish(self) -> None: ...


class AsyncPublisher:
    async def __call__(self) -> None: ...


def nested() -> Any:
    def publish() -> None: ...

    return publish


unnamed = functools.partial(publish, 1)

NEED_A_NAME = [
    pytest.param(lambda: None, "<lambda>.*top of its module, or pass name=", id="lambda"),
    pytest.param(nested(), r"<locals>\.publish.*top of its module, or pass name=", id="nested"),
    pytest.param(unnamed, "is a partial and has no name.*name=", id="partial"),
    pytest.param(Publisher(), "is a Publisher and has no name.*name=", id="instance"),
]
NEVER = [
    pytest.param(publish_later, "publish_later is asynchronous", id="coroutine"),
    pytest.param(publish_in_pieces, "publish_in_pieces is .*a generator", id="generator"),
    pytest.param(functools.partial(publish_later), "asynchronous", id="partial of a coroutine"),
    pytest.param(AsyncPublisher(), "asynchronous", id="instance with an async call"),
    pytest.param(vars(Publisher)["publish"], "is a property, which can't be called", id="property"),
    pytest.param(Publisher, r"Publisher is a class: calling it makes", id="class"),
    pytest.param("orders", "'orders' is a str, which can't be called", id="text"),
    pytest.param(classmethod(publish_later), "asynchronous", id="class method of a coroutine"),  # type: ignore[arg-type]
    pytest.param(staticmethod(publish_later), "asynchronous", id="static method of a coroutine"),
]


class TestAFunctionThatCanNotBeRegistered:
    @pytest.mark.parametrize(("func", "message"), [*NEED_A_NAME, *NEVER])
    @pytest.mark.parametrize("decorate", [save_to_outbox, save_to_outbox_stream("s")])
    def test_is_refused_with_the_reason(self, decorate: Any, func: Any, message: str) -> None:
        before = registry.all_functions()
        with pytest.raises(NotRegistrable, match=message):
            decorate(func)
        assert registry.all_functions() == before

    @pytest.mark.parametrize(("func", "message"), NEED_A_NAME)
    def test_for_want_of_a_name_can_be_with_one(self, func: Any, message: str) -> None:
        decorated = save_to_outbox(name="tests.with_a_name")(func)
        assert decorated.original_func is func
        assert registry.find("tests.with_a_name").func is func

    @pytest.mark.parametrize(("func", "message"), NEVER)
    def test_for_what_it_is_can_not_be_with_a_name_either(self, func: Any, message: str) -> None:
        with pytest.raises(NotRegistrable, match=message):
            save_to_outbox(name="tests.with_a_name")(func)

    def test_that_can_not_be_hashed_can_be_listed(self) -> None:
        class Unhashable(Publisher):
            __hash__ = None  # type: ignore[assignment]

        save_to_outbox(name="tests.unhashable")(Unhashable())
        assert "tests.unhashable" in [function.name for function in registry.all_functions()]

    @pytest.mark.parametrize(
        "options", [{"encoder": "json.JSONEncoder"}, {"encoder": object}, {"key": "shop"}]
    )
    def test_is_one_with_bad_options_even_without_a_name_of_its_own(
        self, options: dict[str, Any]
    ) -> None:
        (option,) = options
        with pytest.raises(NotRegistrable, match=f"{option}="):
            save_to_outbox_stream("s", name="tests.bad_options", **options)(unnamed)


class TestAName:
    @pytest.mark.parametrize("aliases", ["tests.former", "", None, 5])
    def test_of_before_has_to_stand_in_a_list(self, aliases: Any) -> None:
        """A text is a list of letters: each would be taken for a name."""
        with pytest.raises(InvalidName, match=r"aliases=.* must be a list of names: aliases=\["):
            save_to_outbox(aliases=aliases)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ({"name": 5}, "The name 5 is a int; it must be a text"),
            ({"name": publish}, "The name <function publish.* is a function"),
            ({"aliases": [5]}, "The alias 5 is a int"),
            ({"aliases": ["tests.former", None]}, "The alias None is a NoneType"),
            ({"name": "tests.\x00"}, "The name .* holds NUL"),
            ({"name": "tests.\ud800"}, "The name .* holds .*surrogate"),
            ({"aliases": ["\x00"]}, "The alias .* holds NUL"),
        ],
    )
    def test_has_to_be_a_text_that_can_be_stored(self, names: Any, message: str) -> None:
        with pytest.raises(InvalidName, match=message):
            save_to_outbox(**names)

    @pytest.mark.parametrize("names", [{"name": "x" * 256}, {"aliases": ["x" * 256]}])
    def test_has_255_characters_at_most(self, names: Any) -> None:
        with pytest.raises(NameTooLong, match="exceeds 255 characters"):
            save_to_outbox(**names)(publish)

    def test_that_is_long_by_itself_is_refused_too(self) -> None:
        def long() -> None: ...

        long.__qualname__ = "x" * 256
        with pytest.raises(NameTooLong, match="255"):
            save_to_outbox(long)

    def test_that_is_taken_leaves_the_others_of_the_function_free(self) -> None:
        save_to_outbox(name="tests.taken")(publish)
        with pytest.raises(NameTaken, match=r"'tests\.taken' is registered by .*publish"):
            save_to_outbox(name="tests.free", aliases=["tests.taken"])(nested())
        with pytest.raises(UnknownFunction):
            registry.find("tests.free")


class TestAStream:
    @pytest.mark.parametrize("stream", [None, 5, b"orders", ["orders"]])
    def test_has_to_be_a_text(self, stream: Any) -> None:
        with pytest.raises(InvalidName, match=r"The stream .* must be a text"):
            save_to_outbox_stream(stream)

    def test_has_to_be_given(self) -> None:
        with pytest.raises(InvalidName, match=r"publish: .*given its stream, as in @save"):
            save_to_outbox_stream(publish)  # type: ignore[arg-type]

    @pytest.mark.parametrize("stream", ["\x00", "\udfff"])
    def test_has_to_be_storable(self, stream: str) -> None:
        with pytest.raises(InvalidName, match="databases refuse"):
            save_to_outbox_stream(stream)

    def test_has_100_characters_at_most(self) -> None:
        assert save_to_outbox_stream("x" * 100)
        with pytest.raises(NameTooLong, match="exceeds 100 characters"):
            save_to_outbox_stream("x" * 101)

    @pytest.mark.parametrize("strategy", ["in-order", "KEEP_ORDER", 5, object])
    def test_has_a_strategy_that_there_is(self, strategy: Any) -> None:
        with pytest.raises(UnknownStrategy, match="Known: publish-on-commit, keep-order"):
            save_to_outbox_stream("s", strategy)

    @pytest.mark.parametrize("alias", ["nowhere", "", 5])
    def test_has_a_database_that_there_is(self, alias: Any) -> None:
        with pytest.raises(UnknownAlias, match=r"no database .*Known: default"):
            save_to_outbox_stream("s", using=alias)


class Broken(JSONEncoder):
    """An encoder with an error in it."""

    def default(self, o: Any) -> Any:
        return o.no_such_attribute


def in_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.fixture
def writes_nothing(django_assert_num_queries: Any) -> Iterator[None]:
    """Count the queries of the test: there must be none."""
    with django_assert_num_queries(0):
        yield


@pytest.mark.django_db
@pytest.mark.usefixtures("writes_nothing")
@pytest.mark.parametrize("name", ["bare", "in_order"])
class TestACall:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (object(), r"args\[0\]: a value of type object .*an id instead of a model"),
            ({"lines": [{1, 2}]}, r"args\[0\]\['lines'\]\[0\]: a value of type set"),
            (math.nan, r"args\[0\]: nan has no JSON form"),
            ([math.inf], r"args\[0\]\[0\]: inf has no JSON form"),
            (10**5000, r"args\[0\]: an int of more than"),
            (in_itself(), "nested deeper than 100 levels, or in itself"),
            (publish, r"args\[0\]: a value of type function"),
            (Publisher, r"args\[0\]: a value of type type"),
            (ValueError("x"), r"args\[0\]: a value of type ValueError"),
        ],
        ids=lambda value: None if isinstance(value, str) else type(value).__name__,
    )
    def test_with_what_can_not_make_the_round_trip_says_where(
        self, outbox: Any, name: str, value: Any, message: str
    ) -> None:
        with pytest.raises(NotSerializable, match=message):
            getattr(outbox, name)(value)
        with pytest.raises(NotSerializable, match=message.replace(r"args\[0\]", "named")):
            getattr(outbox, name)(1, named=value)

    def test_with_an_encoder_that_raises_says_where(self, outbox: Any, name: str) -> None:
        with pytest.raises(NotSerializable, match=r"args\[1\]: a value of type object") as caught:
            getattr(outbox, name)(1, object(), encoder=Broken)
        assert isinstance(caught.value.__cause__, AttributeError)

    def test_that_is_too_large_says_how_large(self, outbox: Any, settings: Any, name: str) -> None:
        settings.JAIMINHO_CONFIG = {"MAX_PAYLOAD_BYTES": 100}
        message = r"take 225 bytes; JAIMINHO_CONFIG\['MAX_PAYLOAD_BYTES'\] allows 100.*reference"
        with pytest.raises(PayloadTooLarge, match=message):
            getattr(outbox, name)("x" * 200)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("PUBLISH_STRATEGY", "in-order"),
            ("DEFAULT_ENCODER", "no.such.Encoder"),
            ("MAX_PAYLOAD_BYTES", 0),
            ("SIGN_EVENTS", "yes"),
            ("LEASE_SECONDS", 0),
        ],
    )
    def test_under_settings_that_are_wrong_names_the_key(
        self, settings: Any, name: str, key: str, value: Any
    ) -> None:
        settings.JAIMINHO_CONFIG = {key: value}
        decorated = save_to_outbox(name=f"tests.{name}")(publish)
        with pytest.raises(ImproperlyConfigured, match=rf"JAIMINHO_CONFIG\['{key}'\] must be"):
            decorated(1)

    def test_to_a_database_that_there_is_not_says_which_there_are(
        self, outbox: Any, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`using=` of a module that was imported before the settings, or a router's mistake."""
        monkeypatch.setattr(type(router), "db_for_write", lambda *args, **hints: "nowhere")
        with pytest.raises(UnknownAlias, match=rf"outbox:{name} writes .*'nowhere'.*default"):
            getattr(outbox, name)(1)


def raises(error: Exception) -> Callable[..., Any]:
    def key(*args: Any, **kwargs: Any) -> Any:
        raise error

    return key


@pytest.mark.django_db
@pytest.mark.usefixtures("writes_nothing")
@pytest.mark.parametrize("strategy", ["publish-on-commit", "keep-order"])
class TestAKey:
    def call(self, strategy: str, key: Callable[..., Any]) -> None:
        decorate = save_to_outbox_stream("s", strategy, key=key, name="tests.keyed")
        decorate(publish)({"shop": 1})

    @pytest.mark.parametrize("error", [KeyError("shop"), ZeroDivisionError("x"), OutboxError()])
    def test_that_raises_says_whose_it_is_and_why(self, strategy: str, error: Exception) -> None:
        kind = type(error).__name__
        with pytest.raises(KeyFailed, match=rf"tests\.keyed: its key= .*{kind}") as caught:
            self.call(strategy, raises(error))
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize(
        "key", [object(), {1}, math.nan, publish], ids=lambda key: type(key).__name__
    )
    def test_that_can_not_be_written_is_refused(self, strategy: str, key: Any) -> None:
        with pytest.raises(KeyFailed, match=r"tests\.keyed: .*NotSerializable: key: .*plain data"):
            self.call(strategy, lambda _: key)

    @pytest.mark.parametrize("key", ["a\x00", "\ud800"])
    def test_that_databases_refuse_is_refused(self, strategy: str, key: str) -> None:
        with pytest.raises(KeyFailed, match=r"tests\.keyed: .*NUL"):
            self.call(strategy, lambda _: key)

    @pytest.mark.parametrize("key", ["x" * 201, ["x" * 197]])
    def test_has_200_characters_at_most(self, strategy: str, key: Any) -> None:
        with pytest.raises(NameTooLong, match=r"tests\.keyed: the ordering key exceeds 200"):
            self.call(strategy, lambda _: key)


@pytest.mark.django_db
def test_a_key_of_nul_in_json_can_be_stored() -> None:
    decorate = save_to_outbox_stream("s", key=lambda value: value, name="tests.keyed")
    decorate(publish)(["\x00"])
    assert Event.objects.get().key == '["\\u0000"]'


def test_every_error_of_the_outbox_can_be_caught_as_one() -> None:
    named = [
        item
        for item in vars(exceptions).values()
        if isinstance(item, type) and issubclass(item, Exception)
    ]
    assert len(named) > 10
    assert all(issubclass(item, OutboxError) for item in named)


def test_a_function_that_was_given_a_wrong_database_before_the_settings_is_found_by_a_check(
    settings: Any,
) -> None:
    from django.core.checks import run_checks

    registry.register(OutboxFunction(publish, name="tests.elsewhere", using="nowhere"))
    found = [m.msg for m in run_checks(tags=["jaiminho_celery"]) if m.id == "jaiminho_celery.E003"]
    assert found == ["tests.elsewhere writes its events to 'nowhere', which DATABASES lacks."]
