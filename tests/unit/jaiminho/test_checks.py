"""System checks of the outbox: each message, by its id."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import CheckMessage, Error, run_checks

from jaiminho_celery import registry


def found() -> list[CheckMessage]:
    return run_checks(tags=["jaiminho_celery"])


def test_the_project_of_the_tests_is_in_order() -> None:
    assert found() == []


def test_settings_are_looked_at(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"SIGN_EVENT": True, "LEASE_SECONDS": 0}
    assert [(m.id, type(m)) for m in found()] == [("jaiminho_celery.E001", Error)] * 2


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
