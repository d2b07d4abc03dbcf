"""System checks: each message, by its id, and none of them without a reason."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, run_checks
from django.db import connections, models
from django.test.utils import isolate_apps

from parviraptor_celery import registry
from parviraptor_celery.models import AbstractJob, AbstractJobFactory

Found = Callable[[], list[CheckMessage]]

make_base_class = AbstractJobFactory.make_base_class


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[Found]:
    """Run the checks over a project whose only queues are those that the test defines."""
    with isolate_apps("tests.testapp") as apps:
        monkeypatch.setattr(registry, "apps", apps)
        yield lambda: run_checks(tags=["parviraptor_celery"])


def queue(name: str, base: type[AbstractJob], **attributes: Any) -> type[AbstractJob]:
    """Define the class of a queue as a user's module would."""
    meta = attributes.pop("Meta", type("Meta", (base.Meta,), {"app_label": "testapp"}))
    body = {"process": lambda self: None, "__module__": __name__, "Meta": meta}
    defined: type[AbstractJob] = type(name, (base,), {**body, **attributes})
    return defined


def test_the_project_of_the_tests_is_in_order() -> None:
    assert run_checks(tags=["parviraptor_celery"]) == []


@pytest.mark.parametrize("fields", [None, [], ["shop", "product"]])
def test_a_sound_queue_is_in_order(found: Found, fields: list[str] | None) -> None:
    columns = {"shop": models.CharField(max_length=9), "product": models.IntegerField()}
    queue("Sound", make_base_class(fields), **columns)
    assert found() == []


def test_time_zones_are_needed(found: Found, settings: Any) -> None:
    settings.USE_TZ = False
    [message] = found()
    assert (message.id, type(message)) == ("parviraptor_celery.E002", Error)
    assert message.hint == "Set USE_TZ = True."


def test_a_queue_needs_a_body(found: Found) -> None:
    base = make_base_class(None)
    queue("Bodiless", base, process=AbstractJob.process)
    [message] = found()
    assert message.id == "parviraptor_celery.E003"
    assert "testapp.Bodiless" in message.msg


def test_a_dependent_field_must_exist(found: Found) -> None:
    queue("Typo", make_base_class(["shopp"]), shop=models.CharField(max_length=9))
    [message] = found()
    assert message.id == "parviraptor_celery.E004"
    assert "'shopp'" in message.msg
    assert message.hint is not None
    assert "shop" in message.hint


@pytest.mark.parametrize(
    "field",
    [models.FloatField(), models.JSONField(), models.BinaryField()],
    ids=lambda field: type(field).__name__,
)
def test_a_dependent_field_must_be_one_whose_equality_can_be_told(
    found: Found, field: models.Field[Any, Any]
) -> None:
    queue("Vague", make_base_class(["value"]), value=copy.copy(field))
    [message] = found()
    assert message.id == "parviraptor_celery.E005"
    assert f"testapp.Vague.value is a {type(field).__name__}" in message.msg


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("using", models.CharField(max_length=9)),
        ("priority", models.CharField(max_length=9)),
        ("run_after", models.DateField()),
        ("unique_key", models.CharField(max_length=9)),
        ("status", models.CharField(max_length=9)),
        ("attempt", models.IntegerField()),
        ("error_message", models.CharField(max_length=9)),
    ],
)
def test_a_field_must_not_clash_with_those_of_the_engine(
    found: Found, name: str, field: models.Field[Any, Any]
) -> None:
    queue("Clash", make_base_class(None), **{name: copy.copy(field)})
    messages = [message for message in found() if message.id == "parviraptor_celery.E006"]
    assert len(messages) == 1
    assert f"testapp.Clash.{name} clashes" in messages[0].msg


@pytest.mark.parametrize("name", ["id", "code"])
def test_the_key_must_be_an_automatic_number(found: Found, name: str) -> None:
    queue("Keyed", make_base_class([]), **{name: models.UUIDField(primary_key=True)})
    assert "parviraptor_celery.E007" in [message.id for message in found()]


@pytest.mark.parametrize(
    "options",
    [
        {"indexes": [], "constraints": []},
        {"indexes": [models.Index(fields=["status"], name="of_my_own")], "constraints": []},
        {},
    ],
    ids=["emptied", "replaced", "not derived"],
)
def test_a_class_meta_must_not_drop_indexes_and_constraints(
    found: Found, options: dict[str, Any]
) -> None:
    meta = type("Meta", (), {"app_label": "testapp", **options})
    queue("Dropped", make_base_class([]), Meta=meta)
    [message] = found()
    assert (message.id, type(message)) == ("parviraptor_celery.E008", Error)


def test_replacing_the_indexes_by_as_many_others_is_noticed(found: Found) -> None:
    base = make_base_class([])
    others = [models.Index(fields=["status"], name=f"other_{n}") for n in range(9)]
    meta = type("Meta", (base.Meta,), {"app_label": "testapp", "indexes": others})
    queue("Replaced", base, Meta=meta)
    assert [message.id for message in found()] == ["parviraptor_celery.E008"]


def test_a_queue_that_no_factory_made_is_noticed(found: Found) -> None:
    """It has no `dependent_fields` of its own, nor any index."""
    queue("Homemade", AbstractJob)
    messages = found()
    assert [type(message) for message in messages] == [Error]
    assert "testapp.Homemade" in messages[0].msg
    assert "make_base_class" in f"{messages[0].msg} {messages[0].hint}"


@pytest.mark.parametrize("options", [{}, {"transaction_mode": "DEFERRED"}, None])
def test_sqlite_should_begin_its_transactions_immediately(
    found: Found, monkeypatch: pytest.MonkeyPatch, options: dict[str, str] | None
) -> None:
    monkeypatch.setitem(django_settings.DATABASES["default"], "OPTIONS", options)
    [message] = found()
    assert (message.id, type(message)) == ("parviraptor_celery.W001", Warning)
    assert message.hint is not None
    assert "IMMEDIATE" in message.hint
    assert connections["default"].vendor == "sqlite"
