"""Which function a row means: a name, looked up among the decorated functions."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from json import JSONEncoder
from typing import Any

from django.apps import apps
from django.db import Error, connections, router

from parviraptor_celery.aliases import aliases_holding
from parviraptor_celery.database import tells_no_value

from .conf import settings
from .exceptions import NameTaken, NotRegistrable, UnknownFunction, UnknownStream

logger = logging.getLogger("jaiminho_celery")

Call = tuple[list[Any], dict[str, Any]]
"""The positional and the keyword arguments of a call."""

PublishMany = Callable[[list[Call]], list[Exception | None]]


@dataclass(frozen=True, eq=False)  # what is decorated need not be hashable
class OutboxFunction:
    """A decorated function, and how its events are written and published."""

    func: Callable[..., Any]
    name: str
    stream: str = ""
    strategy: str | None = None
    using: str | None = None
    encoder: type[JSONEncoder] | None = None
    key: Callable[..., Any] | None = None
    aliases: tuple[str, ...] = field(default=())
    publish_many: PublishMany | None = None
    """Makes many calls at once, and returns what each raised; such events go by the batch."""

    @property
    def effective_strategy(self) -> str:
        return self.strategy or settings.PUBLISH_STRATEGY


_functions: dict[str, OutboxFunction] = {}
_NOT_RUN_BY_A_CALL = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


def default_name(func: Any) -> str:
    """Return ``module:qualified.name``, under which a worker finds ``func`` again.

    Raises:
        NotRegistrable: the function is a lambda, or lives inside another function.
    """
    module, qualname = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
    if not module or not qualname:
        raise NotRegistrable(
            f"{where(func)} is a {type(func).__qualname__} and has no name of its own by which a "
            "worker could find it. Decorate a function, or pass name=…."
        )
    if "<" in qualname:
        raise NotRegistrable(
            f"{module}.{qualname} can't be found again by a worker. Move it to the top of its "
            "module, or pass name=… and register it in every process."
        )
    return f"{module}:{qualname}"


def require_runnable(func: Any) -> None:
    """Raise NotRegistrable for what a call doesn't run: classes, coroutines and generators."""
    if isinstance(func, type):
        raise NotRegistrable(
            f"{where(func)} is a class: calling it makes an instance. Decorate a function, or a "
            "static or class method of it."
        )
    called = (func, type(func).__call__)  # the latter is what runs if it is an instance
    if any(is_kind(item) for item in called for is_kind in _NOT_RUN_BY_A_CALL):
        raise NotRegistrable(
            f"{where(func)} is asynchronous or a generator: calling it doesn't run it. "
            "Decorate an ordinary function that does."
        )


def register(function: OutboxFunction) -> None:
    """Make ``function`` known under its name and aliases.

    Raises:
        NameTaken: another function has one of them.
    """
    names = (function.name, *function.aliases)
    for name in names:
        known = _functions.get(name)
        if known is not None and _identity(known.func) != _identity(function.func):
            raise NameTaken(
                f"{name!r} is registered by {where(known.func)} and can't be taken by "
                f"{where(function.func)}. Pass another name=…."
            )
    _functions.update(dict.fromkeys(names, function))


def find(name: str) -> OutboxFunction:
    """Return the function registered as ``name``; call it only for a row whose signature holds.

    If the name is not known yet, the module that it gives is imported, provided that it lies
    inside an installed app. Nothing else is ever imported.

    Raises:
        UnknownFunction: still nobody knows the name.
    """
    if name not in _functions:
        import_module_of(name)
    try:
        return _functions[name]
    except KeyError:
        raise UnknownFunction(name) from None


def all_functions() -> list[OutboxFunction]:
    """Return every decorated function of this process."""
    return sorted(set(_functions.values()), key=lambda function: function.name)


def goes_by_the_batch(name: str) -> bool:
    """Return whether events of this name are published many at a time."""
    function = _functions.get(name)
    return function is not None and function.publish_many is not None


def known_streams() -> list[str]:
    """Return the streams of all decorated functions of this process."""
    return sorted({function.stream for function in _functions.values()})


def known_aliases() -> list[str]:
    """Return the databases to relay and clean.

    ``JAIMINHO_CONFIG["DATABASES"]`` names them; otherwise it is where the router writes, what a
    ``using=`` names, and every other database that has the table.
    """
    model = apps.get_model("jaiminho_celery", "Event")
    if settings.DATABASES is not None:
        return [name for name in settings.DATABASES if router.allow_migrate_model(name, model)]
    named = {function.using for function in _functions.values() if function.using}
    return aliases_holding(model, sorted(named | {router.db_for_write(model)}))


def for_each_alias(body: Callable[[str], Any]) -> list[str]:
    """Call ``body`` with each database; one that fails doesn't keep the others waiting.

    Returns the databases that were left out.
    """
    left_out = []
    for using in known_aliases():
        try:
            body(using)
        except Error as error:
            logger.error(
                "the outbox in %s was left out (%s)",
                *(using, type(error).__name__),
                exc_info=tells_no_value(error),
            )
            connections[using].close_if_unusable_or_obsolete()
            left_out.append(using)
    return left_out


def require_stream(stream: str, others: set[str]) -> None:
    """Raise UnknownStream unless a function of this process, or ``others``, know ``stream``."""
    streams = set(known_streams()) | others
    if stream not in streams:
        listing = ", ".join(repr(name) for name in sorted(streams)) or "none"
        raise UnknownStream(f"There is no stream {stream!r}. Known streams: {listing}.")


def import_module_of(name: str) -> None:
    """Import the module of ``module:qualified.name`` if it lies inside an installed app.

    Call it only for a row whose signature holds. One that can't be imported is logged.
    """
    module, separator, _ = name.partition(":")
    if not separator or not _is_in_installed_app(module):
        return
    try:
        importlib.import_module(module)
    except Exception as error:
        # Whatever a half-deployed module raises: the event waits for a worker that can import it.
        kind = type(error).__name__
        logger.warning("%s, named by an event, could not be imported (%s)", module, kind)


def _is_in_installed_app(module: str) -> bool:
    if not all(part.isidentifier() for part in module.split(".")):
        return False
    return any(
        module == config.name or module.startswith(f"{config.name}.")
        for config in apps.get_app_configs()
    )


def _identity(func: Any) -> tuple[str, object]:
    """Return what tells functions apart, but not a module from the same one loaded again."""
    owner = getattr(func, "__self__", None)
    return where(func), where(owner) if isinstance(owner, type) else id(owner)


def where(func: Any) -> str:
    """Return ``module.qualified.name`` for messages, or what there is instead."""
    return f"{getattr(func, '__module__', '?')}.{getattr(func, '__qualname__', func)}"
