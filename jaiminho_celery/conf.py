"""``JAIMINHO_CONFIG``: read at every access, each default written once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from json import JSONEncoder
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.module_loading import import_string

from parviraptor_celery.conf import (
    AppSettings,
    Setting,
    aliases,
    boolean,
    positive,
    positive_integer,
)

from .constants import PublishStrategyType

logger = logging.getLogger("jaiminho_celery")


def _encoder(value: object) -> str | None:
    loaded = _load(value)
    is_encoder = isinstance(loaded, type) and issubclass(loaded, JSONEncoder)
    return None if is_encoder else "must be a JSONEncoder class, or the dotted path of one"


def _strategy(value: object) -> str | None:
    names = [strategy.value for strategy in PublishStrategyType]
    return None if value in names else f"must be one of {', '.join(names)}"


def _age(value: object) -> str | None:
    is_age = isinstance(value, timedelta) and value >= timedelta(0)
    return None if is_age else "must be a timedelta, for example timedelta(days=14)"


def _exceptions(value: object) -> str | None:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        return "must be a tuple of exception classes, or of their dotted paths"
    for item in value:
        loaded = _load(item)
        if not (isinstance(loaded, type) and issubclass(loaded, Exception)):
            return f"holds {item!r}, which is no class derived from Exception"
    return None


def _maximum(value: object) -> str | None:
    is_one = value is None or positive_integer(value) is None
    return None if is_one else "must be None, or a whole number above zero"


def _callable(value: object) -> str | None:
    if value is None or callable(_load(value)):
        return None
    return "must be None, a callable, or the dotted path of one"


def _positive_or_none(value: object) -> str | None:
    return (
        None if value is None or positive(value) is None else "must be a number above zero, or None"
    )


def _load(value: object) -> object:
    """Return what a dotted path of the user's settings names, or ``value`` itself."""
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except (ImportError, TypeError, ValueError):  # the latter two for "..report" and "."
        return None


class JaiminhoSettings(AppSettings):
    """The outbox's settings; docs/settings.md explains each."""

    setting_name = "JAIMINHO_CONFIG"

    PERSIST_ALL_EVENTS = Setting[bool](False, boolean, check=101)
    DELETE_AFTER_SEND = Setting[bool](False, boolean, check=102)
    DEFAULT_ENCODER = Setting[type[JSONEncoder] | str](
        DjangoJSONEncoder,
        _encoder,
        example="django.core.serializers.json.DjangoJSONEncoder",
        check=103,
    )
    PUBLISH_STRATEGY = Setting[str](
        PublishStrategyType.PUBLISH_ON_COMMIT.value, _strategy, check=104
    )
    TIME_TO_DELETE = Setting[timedelta](timedelta(days=14), _age, check=105)
    SIGN_EVENTS = Setting[bool](True, boolean, check=106)
    VERIFY_EVENTS_SIGNATURE = Setting[bool](True, boolean, check=107)
    NON_RETRYABLE_EXCEPTIONS = Setting[tuple[Any, ...]](
        (), _exceptions, example=("django.core.exceptions.ValidationError",), check=108
    )
    DEFAULT_CAPTURE_EXCEPTION = Setting[Callable[[BaseException], None] | str | None](
        None, _callable, example="shop.errors.report", check=109
    )
    LEASE_SECONDS = Setting[float](60, positive, check=110)
    RELAY_INTERVAL_SECONDS = Setting[float](30, positive, check=111)
    CLEAN_INTERVAL_SECONDS = Setting[float](3600, positive, check=112)
    MAX_PAYLOAD_BYTES = Setting[int](256 * 1024, positive_integer, check=113)
    BACKOFF_BASE_SECONDS = Setting[float](1, positive, check=114)
    BACKOFF_CAP_SECONDS = Setting[float](600, positive, check=115)
    RELAY_ROWS = Setting[int](500, positive_integer, check=116)
    RELAY_SECONDS = Setting[float](2, positive, check=117)
    SWEEP_LANES = Setting[int](2000, positive_integer, check=118)
    CLEAN_CHUNK_ROWS = Setting[int](1000, positive_integer, check=119)
    DATABASES = Setting[list[str] | None](None, aliases, example=["default"], check=120)
    PUBLISH_IN_BACKGROUND = Setting[bool](True, boolean, check=121)
    PARK_BEYOND_SECONDS = Setting[float | None](600, _positive_or_none, check=122)
    MAX_ATTEMPTS = Setting[int | None](None, _maximum, example=10, check=123)

    def default_encoder(self) -> type[JSONEncoder]:
        """Return DEFAULT_ENCODER, loaded."""
        return _load(self.DEFAULT_ENCODER)  # type: ignore[return-value]

    def non_retryable(self) -> tuple[type[Exception], ...]:
        """Return NON_RETRYABLE_EXCEPTIONS, loaded."""
        return tuple(_load(item) for item in self.NON_RETRYABLE_EXCEPTIONS)  # type: ignore[misc]

    def capture_exception(self, error: BaseException) -> None:
        """Hand ``error`` to DEFAULT_CAPTURE_EXCEPTION; its own errors must not stop the relay."""
        capture = _load(self.DEFAULT_CAPTURE_EXCEPTION)
        if not callable(capture):
            return
        try:
            capture(error)
        except Exception:
            logger.exception("DEFAULT_CAPTURE_EXCEPTION raised")


settings = JaiminhoSettings()
