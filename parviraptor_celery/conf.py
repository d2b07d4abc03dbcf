"""Settings: read at every access, so that ``override_settings`` works; each default once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")
Rule = Callable[[Any], str | None]


def positive(value: Any) -> str | None:
    """Return what is wrong with ``value`` as a number above zero, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and value > 0:
        return None
    return "must be a number above zero"


def positive_integer(value: object) -> str | None:
    """Return what is wrong with ``value`` as a whole number above zero, or None."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        return "must be a whole number above zero"
    return None


def boolean(value: object) -> str | None:
    """Return what is wrong with ``value`` as a boolean, or None."""
    return None if isinstance(value, bool) else "must be True or False"


def aliases(value: object) -> str | None:
    """Return what is wrong with ``value`` as a sequence of database aliases, or None."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        return "must be a list of database aliases"
    unknown = sorted(str(alias) for alias in value if alias not in django_settings.DATABASES)
    return f"names aliases that DATABASES lacks: {', '.join(unknown)}" if unknown else None


class Setting(Generic[T]):
    """One key of an app's settings dictionary: its default, and the rule it must keep."""

    def __init__(self, default: T, rule: Rule) -> None:
        self.default = default
        self.rule = rule

    def __set_name__(self, owner: type[AppSettings], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: AppSettings, owner: type) -> T: ...
    def __get__(self, instance: AppSettings | None, owner: type) -> Setting[T] | T:
        if instance is None:
            return self
        value = instance.given().get(self.name, self.default)
        problem = self.rule(value)
        if problem:
            raise ImproperlyConfigured(f"{instance.setting_name}[{self.name!r}] {problem}.")
        return value


class AppSettings:
    """Base of an app's settings: a dictionary in Django's settings with known keys."""

    setting_name: ClassVar[str]

    def given(self) -> Mapping[str, Any]:
        """Return the dictionary as the user wrote it (empty when there is none)."""
        value = getattr(django_settings, self.setting_name, {})
        return value if isinstance(value, Mapping) else {}

    @classmethod
    def known(cls) -> dict[str, Setting[Any]]:
        """Return every setting by its name."""
        return {name: item for name, item in vars(cls).items() if isinstance(item, Setting)}

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each unknown key and each value that breaks its rule."""
        value = getattr(django_settings, self.setting_name, {})
        if not isinstance(value, Mapping):
            yield f"{self.setting_name} must be a dictionary."
            return
        known = self.known()
        for key, item in value.items():
            if key not in known:
                yield f"{self.setting_name} has the unknown key {key!r}. " + _suggest(key, known)
            elif problem := known[key].rule(item):
                yield f"{self.setting_name}[{key!r}] {problem}."


def _suggest(key: object, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(known))}."


class ParviraptorSettings(AppSettings):
    """``PARVIRAPTOR_CONFIG``."""

    setting_name = "PARVIRAPTOR_CONFIG"

    LEASE_SECONDS = Setting[float](60, positive)
    DISPATCH_INTERVAL_SECONDS = Setting[float](30, positive)
    CLEAN_INTERVAL_SECONDS = Setting[float](3600, positive)
    MAX_WORKER_DEATHS = Setting[int](3, positive_integer)
    KICK_JOBS = Setting[int](500, positive_integer)
    KICK_SECONDS = Setting[float](2, positive)
    SWEEP_LANES = Setting[int](2000, positive_integer)
    RETRY_COUNTDOWN_CAP_SECONDS = Setting[float](600, positive)
    BROKER_TIMEOUT_SECONDS = Setting[float](1, positive)
    BROKER_BREAKER_SECONDS = Setting[float](5, positive)
    CLEAN_CHUNK_ROWS = Setting[int](1000, positive_integer)
    DATABASES = Setting[list[str] | None](None, aliases)
    MONITORING_IS_OPEN = Setting[bool](True, boolean)


settings = ParviraptorSettings()
