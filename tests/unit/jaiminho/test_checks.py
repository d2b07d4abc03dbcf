"""System checks of the outbox: each message, by its id."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import CheckMessage, Error, Warning, run_checks

from jaiminho_celery import registry


def found() -> list[CheckMessage]:
    return run_checks(tags=["jaiminho_celery"])


def test_the_project_of_the_tests_is_in_order() -> None:
    assert found() == []


def test_settings_are_looked_at(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"SIGN_EVENT": True, "LEASE_SECONDS": 0}
    assert [(m.id, type(m)) for m in found()] == [
        ("jaiminho_celery.E001", Error),
        ("jaiminho_celery.E110", Error),
    ]


def test_running_only_signed_events_without_signing_any_is_an_error(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"SIGN_EVENTS": False}
    [message] = found()
    assert (message.id, type(message)) == ("jaiminho_celery.E201", Error)
    assert message.hint is not None
    assert "SIGN_EVENTS = True with VERIFY_EVENTS_SIGNATURE = False" in message.hint


def test_neither_signing_nor_looking_at_signatures_is_a_choice(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"SIGN_EVENTS": False, "VERIFY_EVENTS_SIGNATURE": False}
    assert found() == []


@pytest.mark.parametrize("everything", [Exception, "builtins.Exception"])
def test_giving_up_after_any_failure_is_warned_of(settings: Any, everything: Any) -> None:
    settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (ValueError, everything)}
    [message] = found()
    assert (message.id, type(message)) == ("jaiminho_celery.W202", Warning)


def test_pauses_that_never_grow_are_warned_of(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"BACKOFF_BASE_SECONDS": 10, "BACKOFF_CAP_SECONDS": 9}
    assert [message.id for message in found()] == ["jaiminho_celery.W204"]
    settings.JAIMINHO_CONFIG = {"BACKOFF_BASE_SECONDS": 10, "BACKOFF_CAP_SECONDS": 10}
    assert found() == []


def test_what_keys_say_together_is_not_asked_while_one_of_them_is_wrong(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"SIGN_EVENTS": False, "LEASE_SECONDS": "a minute"}
    assert [message.id for message in found()] == ["jaiminho_celery.E110"]


def test_the_settings_of_the_queues_are_looked_at_where_the_outbox_is_alone(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaiminho_celery.checks.apps.is_installed", lambda app: False)
    settings.PARVIRAPTOR_CONFIG = {"BROKER_TIMEOUT_SECONDS": 0}
    assert [message.id for message in found()] == ["parviraptor_celery.E109"]


def test_time_zones_are_needed(settings: Any) -> None:
    settings.USE_TZ = False
    [message] = found()
    assert (message.id, message.hint) == ("jaiminho_celery.E002", "Set USE_TZ = True.")


def test_a_function_that_was_decorated_before_the_settings_needs_a_known_alias(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early = registry.OutboxFunction(found, name="shop.early", using="nowhere")
    monkeypatch.setattr(registry, "_functions", {"shop.early": early})
    [message] = found()
    assert (message.id, type(message)) == ("jaiminho_celery.E003", Error)
    assert "shop.early" in message.msg
    assert "'nowhere'" in message.msg
