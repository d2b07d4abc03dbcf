"""The decorators: a call of the function is written to the outbox instead of being made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from json import JSONEncoder
from typing import Any, Union, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from parviraptor_celery.texts import storable

from . import registry
from .constants import NAME_LENGTH, STREAM_LENGTH, PublishStrategyType
from .exceptions import InvalidName, NameTooLong, NotRegistrable, UnknownAlias, UnknownStrategy
from .registry import OutboxFunction, where

# By its path, since models can't be imported before the app registry is ready, and decorators
# stand in modules that are: celery.py, above all.
WRITE = "jaiminho_celery.strategies.write"

Decoratable = Union[Callable[..., Any], "staticmethod[..., Any]", "classmethod[Any, ..., Any]"]
Decorator = Callable[[Decoratable], Any]


@overload
def save_to_outbox(func: Decoratable, /) -> Any: ...
@overload
def save_to_outbox(
    *,
    using: str | None = None,
    encoder: type[JSONEncoder] | None = None,
    name: str | None = None,
    aliases: Iterable[str] = (),
) -> Decorator: ...
def save_to_outbox(
    func: Decoratable | None = None,
    /,
    *,
    using: str | None = None,
    encoder: type[JSONEncoder] | None = None,
    name: str | None = None,
    aliases: Iterable[str] = (),
) -> Any:
    """Decorate a function so that calling it writes an event in the current transaction.

    >>> @save_to_outbox
    ... def notify(payload): ...

    The function itself runs after the commit, at least once. It stays reachable as
    ``notify.original_func``. The call returns None.

    It may be a function, a static method, a class method (in either order of the decorators), a
    method of a Celery app, or a bound one, as in ``send = save_to_outbox(app.send_task)``. A
    class method runs with the class that it was called on. A method of an app runs on the app
    that it was called on, or, if the relay runs it, on the worker's current app.

    A call may bring an encoder of its own: ``notify(payload, encoder=MyEncoder)``. A JSONEncoder
    class under that keyword is used for this call and is not passed on, since a class could not
    be sent. Anything else called ``encoder`` is an argument like others.

    Args:
        using: the database to write to; by default where the router writes ``Event``.
        encoder: a JSONEncoder class whose ``default()`` converts what JSON doesn't know.
        name: the registered name; by default ``module:qualified.name``.
        aliases: names that this function had before, under which rows may still wait.

    Raises (at decoration): NotRegistrable, NameTaken, NameTooLong, InvalidName, UnknownAlias.
    Raises (at the call): NotSerializable, PayloadTooLarge, UnknownAlias.
    """
    decorate = _decorator(using=using, encoder=encoder, name=name, aliases=aliases)
    return decorate if func is None else decorate(func)


def save_to_outbox_stream(
    stream: str,
    overwrite_strategy_with: PublishStrategyType | str | None = None,
    using: str | None = None,
    encoder: type[JSONEncoder] | None = None,
    key: Callable[..., Any] | None = None,
    name: str | None = None,
    aliases: Iterable[str] = (),
) -> Decorator:
    """Like ``save_to_outbox``, for a named stream with a strategy of its own.

    >>> @save_to_outbox_stream("orders", PublishStrategyType.KEEP_ORDER)
    ... def announce(order): ...

    Args:
        stream: the name of the stream, 100 characters at most. It has to be given: the decorator
            is always called.
        overwrite_strategy_with: instead of JAIMINHO_CONFIG["PUBLISH_STRATEGY"].
        key: called with the arguments of the call (without the class, or app, of a method);
            keeps the order for each value it returns, instead of for the stream as a whole.

    Raises (at decoration): also UnknownStrategy.
    Raises (at the call): also KeyFailed, and NameTooLong for the key.
    """
    if callable(stream):
        raise InvalidName(
            f"{where(stream)}: this decorator has to be given its stream, as in "
            '@save_to_outbox_stream("orders").'
        )
    _require_name("stream", stream, STREAM_LENGTH)
    strategy = _strategy(overwrite_strategy_with)
    return _decorator(
        stream=stream,
        strategy=strategy,
        key=key,
        using=using,
        encoder=encoder,
        name=name,
        aliases=aliases,
    )


def _decorator(*, using: str | None, name: str | None, **options: Any) -> Decorator:
    _refuse_unknown_alias(using)
    options["aliases"] = _aliases(options["aliases"])
    if name is not None:
        _require_name("name", name, NAME_LENGTH)

    def decorate(func: Any) -> Any:
        if isinstance(func, staticmethod | classmethod):
            return type(func)(decorate(func.__func__))
        if not callable(func):
            raise NotRegistrable(
                f"{func!r} is a {type(func).__name__}, which can't be called. Decorate a function, "
                "a static method or a class method; options are passed by keyword."
            )
        registry.require_runnable(func)
        _refuse_bad_options(func, options)
        registered = name or registry.default_name(func)
        _require_name("name", registered, NAME_LENGTH)
        function = OutboxFunction(func=func, name=registered, using=using, **options)
        registry.register(function)
        return _wrapper(function)

    return decorate


def _wrapper(function: OutboxFunction) -> Callable[..., None]:
    @wraps(function.func)
    def save_call(*args: Any, **kwargs: Any) -> None:
        import_string(WRITE)(function, args, kwargs)

    save_call.original_func = function.func  # type: ignore[attr-defined]
    return save_call


def _aliases(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidName(f"aliases={given!r} must be a list of names: aliases=[…].")
    names = tuple(given)
    for name in names:
        _require_name("alias", name, NAME_LENGTH)
    return names


def _require_name(kind: str, given: object, length: int) -> None:
    if not isinstance(given, str):
        raise InvalidName(f"The {kind} {given!r} is a {type(given).__name__}; it must be a text.")
    if len(given) > length:
        raise NameTooLong(f"The {kind} {given!r} exceeds {length} characters.")
    if storable(given) != given:
        raise InvalidName(
            f"The {kind} {given!r} holds NUL or half a character (a lone surrogate), which "
            "databases refuse."
        )


def _refuse_bad_options(func: Any, options: dict[str, Any]) -> None:
    encoder, key = options["encoder"], options.get("key")
    if encoder is not None and not (isinstance(encoder, type) and issubclass(encoder, JSONEncoder)):
        raise NotRegistrable(f"{where(func)}: encoder={encoder!r} is no JSONEncoder class.")
    if key is not None and not callable(key):
        raise NotRegistrable(f"{where(func)}: key={key!r} can't be called.")


def _strategy(given: PublishStrategyType | str | None) -> str | None:
    if given is None:
        return None
    try:
        return PublishStrategyType(given).value
    except ValueError:
        known = ", ".join(strategy.value for strategy in PublishStrategyType)
        raise UnknownStrategy(f"There is no strategy {given!r}. Known: {known}.") from None


def _refuse_unknown_alias(using: str | None) -> None:
    if using is None:
        return
    try:
        known = list(django_settings.DATABASES)
    except ImproperlyConfigured:
        return  # imported before the settings; the system check looks again
    if using not in known:
        raise UnknownAlias(f"There is no database {using!r}. Known: {', '.join(known)}.")
