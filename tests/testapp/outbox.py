"""Decorated functions for the tests. The outbox finds this module by itself."""

from __future__ import annotations

from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream

calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
"""What the functions were called with: name, args, kwargs."""

errors: dict[str, Exception] = {}
"""What a function raises, by its name; the call is noted first."""


def forget() -> None:
    """Start afresh: no calls, no errors."""
    calls.clear()
    errors.clear()


def _note(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    calls.append((function, args, kwargs))
    if function in errors:
        raise errors[function]
    return "done"


class Colour:
    """Something that JSON does not know."""

    def __init__(self, name: str) -> None:
        self.name = name


class ColourEncoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        return {"colour": o.name} if isinstance(o, Colour) else super().default(o)


@save_to_outbox
def bare(*args: Any, **kwargs: Any) -> str:
    return _note("bare", args, kwargs)


@save_to_outbox(encoder=ColourEncoder)
def paint(*args: Any, **kwargs: Any) -> str:
    return _note("paint", args, kwargs)


@save_to_outbox(name="tests.renamed", aliases=["tests.former"])
def renamed(*args: Any, **kwargs: Any) -> str:
    return _note("renamed", args, kwargs)


@save_to_outbox_stream("mails")
def mail(*args: Any, **kwargs: Any) -> str:
    return _note("mail", args, kwargs)


@save_to_outbox_stream("orders", PublishStrategyType.KEEP_ORDER)
def in_order(*args: Any, **kwargs: Any) -> str:
    return _note("in_order", args, kwargs)


@save_to_outbox_stream("stock", PublishStrategyType.KEEP_ORDER, key=lambda shop, *_, **__: shop)
def per_shop(*args: Any, **kwargs: Any) -> str:
    return _note("per_shop", args, kwargs)


class Mailer:
    """Functions that live in a class."""

    @staticmethod
    @save_to_outbox
    def outside(*args: Any, **kwargs: Any) -> str:
        return _note("outside", args, kwargs)

    @save_to_outbox
    @staticmethod
    def inside(*args: Any, **kwargs: Any) -> str:
        return _note("inside", args, kwargs)
