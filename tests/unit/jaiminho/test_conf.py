"""JAIMINHO_CONFIG: defaults, overriding, and what is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from json import JSONEncoder
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder

from jaiminho_celery.conf import settings as outbox_settings


def complaints(settings: Any, config: Any) -> list[str]:
    settings.JAIMINHO_CONFIG = config
    messages = run_checks(tags=["jaiminho_celery"])
    return [f"{m.msg} {m.hint}" for m in messages]


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("PERSIST_ALL_EVENTS", False),
        ("DELETE_AFTER_SEND", False),
        ("DEFAULT_ENCODER", DjangoJSONEncoder),
        ("PUBLISH_STRATEGY", "publish-on-commit"),
        ("TIME_TO_DELETE", timedelta(days=14)),
        ("SIGN_EVENTS", True),
        ("VERIFY_EVENTS_SIGNATURE", True),
        ("NON_RETRYABLE_EXCEPTIONS", ()),
        ("MAX_ATTEMPTS", None),
        ("DEFAULT_CAPTURE_EXCEPTION", None),
        ("LEASE_SECONDS", 60),
        ("MAX_PAYLOAD_BYTES", 256 * 1024),
    ],
)
def test_has_its_defaults(key: str, default: Any) -> None:
    assert getattr(outbox_settings, key) == default


def test_is_read_at_every_access(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"LEASE_SECONDS": 5}
    assert outbox_settings.LEASE_SECONDS == 5
    settings.JAIMINHO_CONFIG = {"LEASE_SECONDS": 7.5}
    assert outbox_settings.LEASE_SECONDS == 7.5


RIGHT = {
    "PERSIST_ALL_EVENTS": True,
    "DEFAULT_ENCODER": "json.JSONEncoder",
    "PUBLISH_STRATEGY": "keep-order",
    "TIME_TO_DELETE": timedelta(0),
    "NON_RETRYABLE_EXCEPTIONS": (ValueError, "django.core.exceptions.ValidationError"),
    "MAX_ATTEMPTS": 1,
    "DEFAULT_CAPTURE_EXCEPTION": "logging.exception",
    "RELAY_INTERVAL_SECONDS": 0.5,
    "DATABASES": ["default"],
}


def test_takes_what_the_documentation_offers(settings: Any) -> None:
    assert complaints(settings, RIGHT) == []


def test_loads_what_is_named_by_its_path(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = RIGHT
    assert outbox_settings.default_encoder() is JSONEncoder
    names = [error.__name__ for error in outbox_settings.non_retryable()]
    assert names == ["ValueError", "ValidationError"]


def test_an_unknown_key_is_reported_with_what_was_probably_meant(settings: Any) -> None:
    [message] = complaints(settings, {"PERSIST_EVENTS": True})
    assert "JAIMINHO_CONFIG has the unknown key 'PERSIST_EVENTS'" in message
    assert "Did you mean 'PERSIST_ALL_EVENTS'?" in message


@pytest.mark.parametrize("config", [[], None, "PERSIST_ALL_EVENTS"])
def test_it_must_be_a_dictionary(settings: Any, config: Any) -> None:
    [message] = complaints(settings, config)
    assert "must be a dictionary" in message


WRONG = [
    ("PERSIST_ALL_EVENTS", "yes"),
    ("DELETE_AFTER_SEND", 1),
    ("DEFAULT_ENCODER", "no.such.Encoder"),
    ("DEFAULT_ENCODER", "nothing"),
    ("DEFAULT_ENCODER", "..nothing"),
    ("DEFAULT_ENCODER", dict),
    ("DEFAULT_ENCODER", DjangoJSONEncoder()),
    ("PUBLISH_STRATEGY", "in-order"),
    ("PUBLISH_STRATEGY", None),
    ("TIME_TO_DELETE", 14),
    ("TIME_TO_DELETE", timedelta(days=-1)),
    ("SIGN_EVENTS", None),
    ("NON_RETRYABLE_EXCEPTIONS", ValueError),
    ("NON_RETRYABLE_EXCEPTIONS", "builtins.ValueError"),
    ("NON_RETRYABLE_EXCEPTIONS", ("builtins.NoSuchError",)),
    ("NON_RETRYABLE_EXCEPTIONS", (dict,)),
    ("NON_RETRYABLE_EXCEPTIONS", (BaseException,)),
    ("NON_RETRYABLE_EXCEPTIONS", (ValueError("an instance"),)),
    ("DEFAULT_CAPTURE_EXCEPTION", "no.such.function"),
    ("DEFAULT_CAPTURE_EXCEPTION", 5),
    ("LEASE_SECONDS", 0),
    ("RELAY_INTERVAL_SECONDS", -1),
    ("MAX_PAYLOAD_BYTES", 1.5),
    ("MAX_ATTEMPTS", 0),
    ("MAX_ATTEMPTS", True),
    ("MAX_ATTEMPTS", "3"),
    ("DATABASES", ["nowhere"]),
    ("DATABASES", [["default"]]),
    ("DATABASES", "default"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_reported_by_its_key(settings: Any, key: str, value: Any) -> None:
    [message] = complaints(settings, {key: value})
    assert f"JAIMINHO_CONFIG[{key!r}]" in message


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_value_is_never_worked_with(settings: Any, key: str, value: Any) -> None:
    settings.JAIMINHO_CONFIG = {key: value}
    with pytest.raises(ImproperlyConfigured, match=key):
        getattr(outbox_settings, key)
