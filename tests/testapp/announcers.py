"""Decorated class methods, and methods of a Celery app. Nobody imports this module unasked."""

from __future__ import annotations

from typing import Any

from celery import Celery

from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream

calls: list[tuple[Any, str, tuple[Any, ...], dict[str, Any]]] = []
"""What the methods were called with: the class or app, name, args, kwargs."""

errors: list[Exception] = []
"""What the next calls raise, one each."""


def _note(receiver: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    calls.append((receiver, name, args, kwargs))
    if errors:
        raise errors.pop()
    return "done"


class Announcer:
    """Class methods in both orders of the decorators, under both strategies."""

    @classmethod
    @save_to_outbox
    def outside(cls, *args: Any, **kwargs: Any) -> str:
        return _note(cls, "outside", args, kwargs)

    @save_to_outbox
    @classmethod
    def inside(cls, *args: Any, **kwargs: Any) -> str:
        return _note(cls, "inside", args, kwargs)

    @classmethod
    @save_to_outbox_stream(
        "announcements", PublishStrategyType.KEEP_ORDER, key=lambda place, *_: place
    )
    def outside_in_order(cls, *args: Any, **kwargs: Any) -> str:
        return _note(cls, "outside_in_order", args, kwargs)

    @save_to_outbox_stream(
        "announcements", PublishStrategyType.KEEP_ORDER, key=lambda place, *_: place
    )
    @classmethod
    def inside_in_order(cls, *args: Any, **kwargs: Any) -> str:
        return _note(cls, "inside_in_order", args, kwargs)

    @classmethod
    def plain(cls, *args: Any, **kwargs: Any) -> str:
        return _note(cls, "plain", args, kwargs)

    @staticmethod
    @save_to_outbox
    def static(*args: Any, **kwargs: Any) -> str:
        return _note(None, "static", args, kwargs)

    @save_to_outbox
    def of_instance(self, *args: Any, **kwargs: Any) -> str:
        return _note(self, "of_instance", args, kwargs)

    def bindable(self, *args: Any, **kwargs: Any) -> str:
        return _note(self, "bindable", args, kwargs)

    class Inner:
        """A class inside a class."""

        @classmethod
        @save_to_outbox
        def nested(cls, *args: Any, **kwargs: Any) -> str:
            return _note(cls, "nested", args, kwargs)


class LoudAnnouncer(Announcer):
    """Calls the decorated class method of its base by way of its own."""

    @classmethod
    def outside(cls, *args: Any, **kwargs: Any) -> Any:
        return super().outside(*args, loud=True, **kwargs)


class QuietAnnouncer(Announcer):
    """Inherits all of them."""


class Stranger:
    """Has methods of the same names, which are not the decorated ones."""

    @classmethod
    def outside(cls, *args: Any, **kwargs: Any) -> str:
        return _note(cls, "STRANGER", args, kwargs)


class ShopCelery(Celery):
    """An app with methods behind the outbox."""

    @save_to_outbox
    def announce(self, *args: Any, **kwargs: Any) -> str:
        return _note(self, "announce", args, kwargs)

    @save_to_outbox_stream("app announcements", PublishStrategyType.KEEP_ORDER)
    def announce_in_order(self, *args: Any, **kwargs: Any) -> str:
        return _note(self, "announce_in_order", args, kwargs)

    def bindable(self, *args: Any, **kwargs: Any) -> str:
        return _note(self, "bindable", args, kwargs)


class BranchCelery(ShopCelery):
    """An app that inherits them."""
