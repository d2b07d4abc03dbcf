"""The decorators: a call of the function is written to the outbox instead of being made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from json import JSONEncoder
from typing import Any, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import registry
from .constants import NAME_LENGTH, STREAM_LENGTH, PublishStrategyType
from .exceptions import NameTooLong, NotRegistrable, UnknownAlias, UnknownStrategy
from .registry import OutboxFunction

# By its path, since models can't be imported before the app registry is ready, and decorators
# stand in modules that are: celery.py, above all.
WRITE = "jaiminho_celery.strategies.write"

Decorator = Callable[[Callable[..., Any]], Any]


@overload
def save_to_outbox(func: Callable[..., Any], /) -> Any: ...
@overload
def save_to_outbox(
    *,
    using: str | None = None,
    encoder: type[JSONEncoder] | None = None,
    name: str | None = None,
    aliases: Iterable[str] = (),
) -> Decorator: ...
def save_to_outbox(
    func: Callable[..., Any] | None = None,
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

    Args:
        using: the database to write to; by default where the router writes ``Event``.
        encoder: a JSONEncoder class whose ``default()`` converts what JSON doesn't know.
        name: the registered name; by default ``module:qualified.name``.
        aliases: names that this function had before, under which rows may still wait.

    Raises (at decoration): NotRegistrable, NameTaken, NameTooLong, UnknownAlias.
    Raises (at the call): NotSerializable, PayloadTooLarge.
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
        stream: the name of the stream, 100 characters at most.
        overwrite_strategy_with: instead of JAIMINHO_CONFIG["PUBLISH_STRATEGY"].
        key: called with the arguments of the call; keeps the order for each value it returns,
            instead of for the stream as a whole.

    Raises (at decoration): also UnknownStrategy.
    """
    if not isinstance(stream, str) or len(stream) > STREAM_LENGTH:
        raise NameTooLong(
            f"The stream {stream!r} must be a text of {STREAM_LENGTH} characters at most."
        )
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
    options["aliases"] = tuple(options["aliases"])

    def decorate(func: Any) -> Any:
        if isinstance(func, staticmethod):
            return staticmethod(decorate(func.__func__))
        if not callable(func):
            raise NotRegistrable(
                f"{func!r} is a {type(func).__name__}. Decorate the function itself, and put "
                "@staticmethod above the outbox's decorator."
            )
        registry.require_runnable(func)
        _refuse_bad_options(func, options)
        registered = name or registry.default_name(func)
        for given in (registered, *options["aliases"]):
            if len(given) > NAME_LENGTH:
                raise NameTooLong(f"The name {given!r} exceeds {NAME_LENGTH} characters.")
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


def _refuse_bad_options(func: Any, options: dict[str, Any]) -> None:
    encoder, key = options["encoder"], options.get("key")
    if encoder is not None and not (isinstance(encoder, type) and issubclass(encoder, JSONEncoder)):
        raise NotRegistrable(f"{func.__qualname__}: encoder={encoder!r} is no JSONEncoder class.")
    if key is not None and not callable(key):
        raise NotRegistrable(f"{func.__qualname__}: key={key!r} can't be called.")


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
