"""PARVIRAPTOR_CONFIG: defaults, overriding, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from parviraptor_celery.conf import settings as queue_settings


def complaints(settings: Settings, config: Any) -> list[str]:
    settings.PARVIRAPTOR_CONFIG = config
    messages = run_checks(tags=["parviraptor_celery"])
    return [f"{m.msg} {m.hint}" for m in messages]


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("LEASE_SECONDS", 60),
        ("MAX_WORKER_DEATHS", 3),
        ("MONITORING_IS_OPEN", True),
        ("DATABASES", None),
    ],
)
def test_has_its_defaults(key: str, default: Any) -> None:
    assert getattr(queue_settings, key) == default


def test_is_read_at_every_access(settings: Settings) -> None:
    settings.PARVIRAPTOR_CONFIG = {"LEASE_SECONDS": 5}
    assert queue_settings.LEASE_SECONDS == 5
    settings.PARVIRAPTOR_CONFIG = {"LEASE_SECONDS": 7.5}
    assert queue_settings.LEASE_SECONDS == 7.5


def test_nothing_is_wrong_with_the_defaults(settings: Settings) -> None:
    assert complaints(settings, {}) == []


def test_an_unknown_key_is_reported_with_what_was_probably_meant(
    settings: Settings,
) -> None:
    [message] = complaints(settings, {"LEASE_SECOND": 5})
    assert "'LEASE_SECOND'" in message
    assert "Did you mean 'LEASE_SECONDS'?" in message


def test_an_unknown_key_that_resembles_none_gets_the_list(settings: Settings) -> None:
    [message] = complaints(settings, {"ZZZ": 5})
    assert "'ZZZ'" in message
    assert "MAX_WORKER_DEATHS" in message


@pytest.mark.parametrize("config", [[], None, "LEASE_SECONDS=5", 5])
def test_it_must_be_a_dictionary(settings: Settings, config: Any) -> None:
    [message] = complaints(settings, config)
    assert "must be a dictionary" in message


WRONG = [
    ("LEASE_SECONDS", 0),
    ("LEASE_SECONDS", -1),
    ("LEASE_SECONDS", "60"),
    ("LEASE_SECONDS", None),
    ("LEASE_SECONDS", True),
    ("LEASE_SECONDS", float("nan")),
    ("LEASE_SECONDS", float("inf")),
    ("DISPATCH_INTERVAL_SECONDS", 0),
    ("MAX_WORKER_DEATHS", 0),
    ("MAX_WORKER_DEATHS", 2.5),
    ("MAX_WORKER_DEATHS", True),
    ("KICK_JOBS", "many"),
    ("CLEAN_CHUNK_ROWS", 0),
    ("MONITORING_IS_OPEN", 1),
    ("DATABASES", "default"),
    ("DATABASES", ["default", "nowhere"]),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_reported_by_its_key(settings: Settings, key: str, value: Any) -> None:
    [message] = complaints(settings, {key: value})
    assert f"PARVIRAPTOR_CONFIG[{key!r}]" in message


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_never_worked_with(settings: Settings, key: str, value: Any) -> None:
    settings.PARVIRAPTOR_CONFIG = {key: value}
    with pytest.raises(ImproperlyConfigured, match=key):
        getattr(queue_settings, key)


def test_each_problem_is_told(settings: Settings) -> None:
    config = {"LEASE_SECONDS": 0, "NO_SUCH_KEY": 1, "KICK_JOBS": 10}
    assert len(complaints(settings, config)) == 2
