"""Settings: read at every access, so that ``override_settings`` works; each default once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")
Rule = Callable[[Any], str | None]

DICTIONARY_CHECK = 1
"""The number of what is wrong with a dictionary as a whole, an unknown key for example."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with a settings dictionary: its check's number, a sentence, a way out."""

    check: int
    message: str
    hint: str


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
    known = list(django_settings.DATABASES)  # of a list one may ask for what has no hash, too
    unknown = sorted(str(alias) for alias in value if alias not in known)
    return f"names aliases that DATABASES lacks: {', '.join(unknown)}" if unknown else None


class Setting(Generic[T]):
    """One key of an app's settings dictionary: its default, and the rule it must keep.

    ``check`` is the number of the system check that reports a wrong value (101 makes ``E101``).
    It belongs to the key for ever, as SILENCED_SYSTEM_CHECKS may name it: a key that goes takes
    its number along. ``example`` is what the hint shows, where the default would not help.
    """

    def __init__(self, default: T, rule: Rule, *, check: int, example: object = None) -> None:
        self.default = default
        self.rule = rule
        self.check = check
        self.example = default if example is None else example
        self._good: T | None = None

    def __set_name__(self, owner: type[AppSettings], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: AppSettings, owner: type) -> T: ...
    def __get__(self, instance: AppSettings | None, owner: type) -> Setting[T] | T:
        if instance is None:
            return self
        value: T = instance.given().get(self.name, self.default)
        if value is self._good and isinstance(value, int | float):  # asked for around every row
            return value
        problem = self.rule(value)
        if problem:
            raise ImproperlyConfigured(f"{instance.setting_name}[{self.name!r}] {problem}.")
        self._good = value
        return value


class AppSettings:
    """Base of an app's settings: a dictionary in Django's settings with known keys."""

    setting_name: ClassVar[str]

    def given(self) -> Mapping[str, Any]:
        """Return the dictionary as the user wrote it (empty when there is none)."""
        value = getattr(django_settings, self.setting_name, {})
        return value if isinstance(value, dict | Mapping) else {}

    @classmethod
    def known(cls) -> dict[str, Setting[Any]]:
        """Return every setting by its name."""
        return {name: item for name, item in vars(cls).items() if isinstance(item, Setting)}

    def problems(self) -> Iterator[Problem]:
        """Yield a problem for each unknown key and each value that breaks its rule."""
        name, value = self.setting_name, getattr(django_settings, self.setting_name, {})
        if not isinstance(value, Mapping):
            hint = f"Write {name} = {{}}, with the keys that you want to change in it."
            yield Problem(DICTIONARY_CHECK, f"{name} must be a dictionary.", hint)
            return
        known = self.known()
        for key, item in value.items():
            if key not in known:
                message = f"{name} has the unknown key {key!r}."
                yield Problem(DICTIONARY_CHECK, message, _suggest(key, known))
            elif problem := known[key].rule(item):
                setting = known[key]
                hint = (
                    f"For example {key!r}: {setting.example!r}. Without the key its default holds."
                )
                yield Problem(setting.check, f"{name}[{key!r}] {problem}.", hint)


def _suggest(key: object, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(known))}."


class ParviraptorSettings(AppSettings):
    """``PARVIRAPTOR_CONFIG``."""

    setting_name = "PARVIRAPTOR_CONFIG"

    LEASE_SECONDS = Setting[float](60, positive, check=101)
    DISPATCH_INTERVAL_SECONDS = Setting[float](30, positive, check=102)
    CLEAN_INTERVAL_SECONDS = Setting[float](3600, positive, check=103)
    MAX_WORKER_DEATHS = Setting[int](3, positive_integer, check=104)
    KICK_JOBS = Setting[int](500, positive_integer, check=105)
    KICK_SECONDS = Setting[float](2, positive, check=106)
    SWEEP_LANES = Setting[int](2000, positive_integer, check=107)
    RETRY_COUNTDOWN_CAP_SECONDS = Setting[float](600, positive, check=108)
    BROKER_TIMEOUT_SECONDS = Setting[float](1, positive, check=109)
    BROKER_BREAKER_SECONDS = Setting[float](5, positive, check=110)
    CLEAN_CHUNK_ROWS = Setting[int](1000, positive_integer, check=111)
    DATABASES = Setting[list[str] | None](None, aliases, example=["default"], check=112)
    MONITORING_IS_OPEN = Setting[bool](True, boolean, check=113)
    PREPARE_STATEMENTS = Setting[bool](True, boolean, check=114)


settings = ParviraptorSettings()
