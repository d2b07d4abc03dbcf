"""What a method was called on, and what becomes of it on the way through the outbox.

A class travels as text, ``module:Qualname``, in the signed body of the row. The text leads back
only to a class that has the decorated class method: its owner, or a subclass. A Celery app does
not travel: the relay takes its own current app. Other instances can't travel.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

from parviraptor_celery import broker

from . import registry
from .exceptions import NotSerializable, UnknownReceiver
from .serialization import decode_receiver

APP = "app"
"""Says in the row that the method is one of a Celery app. A class has a colon in its text."""


def split(func: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """Split what a method was called on, a class or an app, from the arguments of the call.

    It is None for functions, for static methods, and for bound methods that aren't an app's.

    Raises:
        NotSerializable: it is an ordinary instance, or a class that a worker can't find.
    """
    if isinstance(func, MethodType):
        return (func.__self__ if broker.is_app(func.__self__) else None), args
    if not args or not _is_defined_in_class(func):
        return None, args
    first, rest = args[0], args[1:]
    if isinstance(first, type) and _has_class_method(first, func):
        _require_found(first)
        return first, rest
    if not _has_method(type(first), func):
        return None, args
    if broker.is_app(first):
        return first, rest
    raise NotSerializable(
        f"self: {func.__module__}.{func.__qualname__} was called on an instance of "
        f"{type(first).__qualname__}, which can't be sent. Decorate a static method, a class "
        "method or a function instead, and pass it plain data (an id, for example)."
    )


def text_of(receiver: Any) -> str | None:
    """Return how the row names what a method was called on; None for a function."""
    if receiver is None:
        return None
    return _path(receiver) if isinstance(receiver, type) else APP


def find(func: Any, body: str) -> Any:
    """Return what ``func`` is to be called on, by what the row says; None for a function.

    Call it only for a row whose signature holds. Modules are imported by the rule of the
    registry, and nothing of what the text names is run.

    Raises:
        UnknownReceiver: no class, or no app, of this process has the method.
        UnreadableEvent: the body is not what ``encode_call`` writes.
    """
    if not _is_defined_in_class(func):
        return None
    text = decode_receiver(body)
    if text is None:
        _require_no_class(func)
        return None
    return _app_with(func) if text == APP else _class_with(func, text)


def call(func: Any, receiver: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Call ``func`` on the class or app that ``find`` or ``split`` returned."""
    if receiver is None:
        func(*args, **kwargs)
    else:
        _unbound(func)(receiver, *args, **kwargs)


def _app_with(func: Any) -> Any:
    app = broker.this_app()
    if not _has_method(type(app), _unbound(func)):
        raise UnknownReceiver(
            f"the current Celery app, {app.main!r}, has no method {func.__qualname__}"
        )
    return app


def _class_with(func: Any, path: str) -> Any:
    found = _class_at(path)
    if found is None or not _has_class_method(found, func):
        raise UnknownReceiver(f"no class {path!r} has the class method {func.__qualname__}")
    return found


def _require_no_class(func: Any) -> None:
    """Refuse a row from before ``func`` became a class method: it would take its data for one."""
    owner = _class_at(f"{func.__module__}:{func.__qualname__.rpartition('.')[0]}")
    if owner is not None and _has_class_method(owner, func):
        raise UnknownReceiver(f"the row names no class, and {func.__qualname__} needs one")


def _require_found(owner: type) -> None:
    if _class_at(_path(owner)) is not owner:
        raise NotSerializable(
            f"cls: a worker can't find the class {_path(owner)!r}. Move it to the top of its "
            "module, under its own name."
        )


def _class_at(path: str) -> type | None:
    """Return the class at ``module:Qualname``, read from dictionaries: no code runs."""
    module, _, qualname = path.partition(":")
    if module not in sys.modules:
        registry.import_module_of(path)
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = vars(found).get(part) if isinstance(found, ModuleType | type) else None
    return found if isinstance(found, type) else None


def _path(owner: type) -> str:
    return f"{owner.__module__}:{owner.__qualname__}"


def _has_class_method(owner: type, func: Any) -> bool:
    return any(
        isinstance(member, classmethod) and _leads_to(member.__func__, func)
        for member in _members(owner, func)
    )


def _has_method(owner: type, func: Any) -> bool:
    return any(
        isinstance(member, FunctionType) and _leads_to(member, func)
        for member in _members(owner, func)
    )


def _members(owner: type, func: Any) -> list[Any]:
    """Return what ``owner`` and its bases hold under the name of ``func``."""
    return [vars(base).get(func.__name__) for base in owner.__mro__]


def _leads_to(member: Any, func: Any) -> bool:
    """Return whether ``func`` is ``member``, or what decorators wrapped in it."""
    return inspect.unwrap(member, stop=lambda inner: inner is func) is func


def _unbound(func: Any) -> Any:
    return func.__func__ if isinstance(func, MethodType) else func


def _is_defined_in_class(func: Any) -> bool:
    return "." in getattr(func, "__qualname__", "") and hasattr(func, "__name__")
