"""Checks of settings: each key has an id of its own, and the documentation tells which."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import Error, Warning, run_checks

from jaiminho_celery.conf import settings as outbox_settings
from parviraptor_celery.conf import AppSettings
from parviraptor_celery.conf import settings as queue_settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text()
APPS: dict[str, AppSettings] = {
    "jaiminho_celery": outbox_settings,
    "parviraptor_celery": queue_settings,
}
KEYS = [(app, name) for app, settings in APPS.items() for name in settings.known()]
INVALID = object()
"""Breaks every rule."""

each_app = pytest.mark.parametrize("app", list(APPS))


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def documented_checks(app: str) -> dict[str, str]:
    """Return the ids that the documentation gives, by key."""
    rows = re.findall(r"^\| `(\w+\.E1\d\d)` \| `(\w+)` \|", section("System checks"), re.MULTILINE)
    return {key: number for number, key in rows if number.startswith(f"{app}.")}


@pytest.mark.parametrize(("app", "key"), KEYS)
def test_a_wrong_value_is_reported_under_the_id_of_its_key(
    app: str, key: str, settings: Any
) -> None:
    setattr(settings, APPS[app].setting_name, {key: INVALID})
    [message] = run_checks(tags=[app])
    assert (message.id, type(message)) == (f"{app}.E{APPS[app].known()[key].check}", Error)
    assert message.hint is not None
    assert message.hint.startswith(f"For example {key!r}: ")


@pytest.mark.parametrize(("app", "key"), KEYS)
def test_what_the_hint_shows_is_right(app: str, key: str) -> None:
    setting = APPS[app].known()[key]
    if setting.example != "shop.errors.report":  # the user's own
        assert setting.rule(setting.example) is None


@pytest.mark.parametrize(("app", "key"), KEYS)
def test_the_id_of_a_key_can_be_silenced(app: str, key: str, settings: Any) -> None:
    setattr(settings, APPS[app].setting_name, {key: INVALID})
    settings.SILENCED_SYSTEM_CHECKS = [documented_checks(app)[key]]
    assert [message for message in run_checks(tags=[app]) if not message.is_silenced()] == []


@each_app
def test_no_two_keys_share_an_id(app: str) -> None:
    numbers = [setting.check for setting in APPS[app].known().values()]
    assert len(numbers) == len(set(numbers))
    assert all(101 <= number <= 199 for number in numbers)


@each_app
def test_the_documentation_names_every_key_and_its_id(app: str) -> None:
    described = re.findall(
        r"^\| `([A-Z_]+)` \|", section(f"`{APPS[app].setting_name}`"), re.MULTILINE
    )
    known = APPS[app].known()
    assert sorted(described) == sorted(known)
    assert documented_checks(app) == {
        key: f"{app}.E{setting.check}" for key, setting in known.items()
    }


@each_app
def test_an_unknown_key_keeps_the_id_of_the_dictionary(app: str, settings: Any) -> None:
    setattr(settings, APPS[app].setting_name, {"NO_SUCH_KEY": 1})
    assert [message.id for message in run_checks(tags=[app])] == [f"{app}.E001"]


@each_app
@pytest.mark.parametrize(
    ("lease", "timeout", "ids"), [(2.9, 1, ["W203"]), (3, 1, []), (60, 21, ["W203"])]
)
def test_a_lease_has_to_outlast_an_attempt_to_reach_the_broker(
    app: str, lease: float, timeout: float, ids: list[str], settings: Any
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"BROKER_TIMEOUT_SECONDS": timeout}
    configured = getattr(settings, APPS[app].setting_name, {})
    setattr(settings, APPS[app].setting_name, {**configured, "LEASE_SECONDS": lease})
    messages = run_checks(tags=[app])
    assert [message.id for message in messages] == [f"{app}.{number}" for number in ids]
    assert all(isinstance(message, Warning) for message in messages)


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, []),
        ({"isolation_level": "READ COMMITTED"}, []),
        ({"isolation_level": "repeatable read"}, ["parviraptor_celery.W002"]),
        ({"isolation_level": "serializable"}, ["parviraptor_celery.W002"]),
        ({"isolation_level": None}, ["parviraptor_celery.W002"]),
    ],
)
def test_mariadb_should_be_at_read_committed(
    options: dict[str, Any], ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(django_settings.DATABASES, "default", {"OPTIONS": options})
    monkeypatch.setattr("parviraptor_celery.connections.connections", {"default": MariaDB()})
    monkeypatch.delitem(django_settings.DATABASES, "postgresql", raising=False)
    monkeypatch.delitem(django_settings.DATABASES, "mariadb", raising=False)
    assert [message.id for message in run_checks(tags=["parviraptor_celery"])] == ids


class MariaDB:
    """As much of a connection as the check looks at."""

    vendor = "mysql"
