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
from parviraptor_celery.attribute_checks import RULES
from parviraptor_celery.models import AbstractJob, AbstractJobFactory, FailurePolicy

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


async def asynchronous(self: Any) -> None: ...


def generator(self: Any) -> Iterator[None]:
    yield


@pytest.mark.parametrize("name", ["process", "is_processable", "on_job_terminated"])
@pytest.mark.parametrize("body", [asynchronous, generator])
def test_a_body_must_be_run_by_its_call(found: Found, name: str, body: Any) -> None:
    queue("Asleep", make_base_class(None), **{name: body})
    [message] = found()
    assert (message.id, type(message)) == ("parviraptor_celery.E019", Error)
    assert f"testapp.Asleep.{name}() is asynchronous or a generator" in message.msg


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


@pytest.mark.parametrize(
    "name",
    [
        *("retry", "enqueue", "enqueue_many", "ignore", "claim", "rows", "move", "atomic", "alias"),
        *("waiting_key", "progress_done", "progress_total", "progress_note", "lane", "token"),
        *("pause", "resume", "cancel", "why", "set_progress", "process", "FailurePolicy", "Status"),
    ],
)
def test_a_field_must_not_have_the_name_of_a_verb_or_a_column(found: Found, name: str) -> None:
    queue("Clash", make_base_class(None), **{name: models.CharField(max_length=9)})
    messages = [message for message in found() if message.id == "parviraptor_celery.E006"]
    assert [f"testapp.Clash.{name} clashes" in message.msg for message in messages] == [True]


@pytest.mark.parametrize("where", ["class", "mixin", "abstract base"])
@pytest.mark.parametrize(
    "name", ["retry", "enqueue", "rows", "move", "alias", "_take_key", "renew"]
)
def test_a_method_must_not_replace_a_verb(found: Found, name: str, where: str) -> None:
    base: Any = make_base_class(None)
    own = {name: lambda self: None}
    match where:
        case "class":
            queue("Clash", base, **own)
        case "mixin":
            mixed = type(
                "Mixed",
                (type("Mixin", (), own), base),
                {
                    "__module__": __name__,
                    "Meta": type("Meta", (base.Meta,), {"app_label": "testapp", "abstract": True}),
                },
            )
            queue("Clash", mixed)
        case _:
            meta = type("Meta", (base.Meta,), {"app_label": "testapp", "abstract": True})
            queue("Clash", queue("Common", base, Meta=meta, **own))
    assert [message.id for message in found()] == ["parviraptor_celery.E006"]


def test_a_method_may_extend_a_verb_and_attributes_in_capitals_are_for_users(found: Found) -> None:
    class Extends(AbstractJobFactory.make_base_class(["shop"])):  # type: ignore[misc]
        shop = models.CharField(max_length=9)
        BACKOFF_STEP_MINUTES = 1
        TEMPORARY_FAILURE_THRESHOLD = 1
        helper = 7

        class Meta(AbstractJob.Meta):
            app_label = "testapp"
            indexes = make_base_class([]).Meta.indexes
            ordering = ("shop",)
            db_table = "somewhere"

        def process(self) -> None:
            pass

        def is_processable(self) -> bool:
            return True

        def save(self, *args: Any, **kwargs: Any) -> None:
            super().save(*args, **kwargs)

        def delete(self, *args: Any, **kwargs: Any) -> Any:
            return 0, {}  # as a queue does whose jobs are never to be deleted

        @classmethod
        def enqueue(cls, **fields: Any) -> Any:
            return super().enqueue(**{"shop": "a", **fields})

        @property
        def is_big(self) -> bool:
            return False

    assert found() == []


def test_a_short_key_is_refused(found: Found) -> None:
    queue("Short", make_base_class([]), id=models.SmallAutoField(primary_key=True))
    assert [message.id for message in found()] == ["parviraptor_celery.E007"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (lambda: models.DateField(auto_now_add=True), "its value is not known before"),
        (models.FileField, "equal values of it can't be told"),
        (lambda: models.ManyToManyField("testapp.Sound"), "equal values of it can't be told"),
    ],
)
def test_a_dependent_field_must_have_its_value_at_the_insert(
    found: Found, field: Any, said: str
) -> None:
    queue("Sound", make_base_class(None))
    queue("Vague", make_base_class(["value"]), value=field())
    [message] = found()
    assert message.id == "parviraptor_celery.E005"
    assert said in message.msg


def test_a_proxy_is_a_view_of_its_queue_and_may_not_run_otherwise(found: Found) -> None:
    base: Any = make_base_class(None)
    sound = queue("Sound", base)
    meta = type("Meta", (), {"app_label": "testapp", "proxy": True})
    queue("View", sound, Meta=meta, process=sound.process)
    assert found() == []
    queue("Other", sound, Meta=meta)
    [message] = found()
    assert message.id == "parviraptor_celery.E012"
    assert "its own process would never be called" in message.msg


def test_a_second_table_for_the_jobs_of_a_queue_is_refused(found: Found) -> None:
    sound = queue("Sound", make_base_class(None))
    meta = type("Meta", (), {"app_label": "testapp"})
    queue("Heir", sound, Meta=meta, more=models.IntegerField())
    assert [message.id for message in found()] == ["parviraptor_celery.E013"]


def test_a_queue_without_order_can_not_be_strict(found: Found) -> None:
    queue("Loose", make_base_class(None), STRICT_ORDER=True)
    assert [message.id for message in found()] == ["parviraptor_celery.E014"]


def test_a_manager_that_knows_nothing_of_queues_is_noticed(found: Found) -> None:
    queue("Foreign", make_base_class([]), objects=models.Manager())
    [message] = found()
    assert (message.id, type(message)) == ("parviraptor_celery.W012", Warning)
    queue("Free", make_base_class(None), objects=models.Manager())
    assert len(found()) == 1


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


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BACKOFF_STRATEGY", "EXPONENTIAL", "BackoffStrategy.EXPONENTIAL or"),
        ("BACKOFF_STRATEGY", FailurePolicy.GO_ON, "BackoffStrategy.EXPONENTIAL or"),
        ("BACKOFF_STEP_MINUTES", -1, "zero or above"),
        ("BACKOFF_STEP_MINUTES", "2", "zero or above"),
        ("BACKOFF_STEP_MINUTES", NAN, "zero or above"),
        ("BACKOFF_STEP_MINUTES", None, "zero or above"),
        ("BACKOFF_CAP_MINUTES", -1, "or None"),
        ("BACKOFF_JITTER", 1.1, "zero to 1"),
        ("BACKOFF_JITTER", -0.1, "zero to 1"),
        ("TEMPORARY_FAILURE_THRESHOLD", -1, "zero or above"),
        ("TEMPORARY_FAILURE_THRESHOLD", True, "zero or above"),
        ("DEFERRED_RETRY_THRESHOLD", "many", "zero or above"),
        ("MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", -1, "zero to 36,500, or None"),
        ("MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", INFINITE, "or None"),
        ("MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN", INFINITE, "zero to"),
        ("MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN", None, "zero to"),
        ("FAILURE_POLICY", "GO_ON", "FailurePolicy.FAIL_DEPENDENTS or"),
        ("SQUASH_WAITING_JOBS", "yes", "True or False"),
        ("atomic", 1, "True or False"),
    ],
)
def test_an_attribute_that_can_not_work_is_reported(
    found: Found, name: str, value: Any, said: str
) -> None:
    queue("Wrong", make_base_class([]), **{name: value})
    [message] = found()
    assert (message.id, type(message)) == ("parviraptor_celery.E011", Error)
    assert message.msg.startswith(f"testapp.Wrong.{name} must be ")
    assert said in message.msg
    assert message.hint is not None
    assert message.hint.startswith("Without the attribute its default holds")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BACKOFF_STEP_MINUTES", 0.5),
        ("BACKOFF_CAP_MINUTES", None),
        ("BACKOFF_CAP_MINUTES", 10),
        ("BACKOFF_JITTER", 1),
        ("TEMPORARY_FAILURE_THRESHOLD", INFINITE),
        ("DEFERRED_RETRY_THRESHOLD", 0),
        ("MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", None),
        ("FAILURE_POLICY", FailurePolicy.HOLD_LANE),
        ("SQUASH_WAITING_JOBS", True),
    ],
)
def test_an_attribute_that_can_work_is_not(found: Found, name: str, value: Any) -> None:
    queue("Right", make_base_class([]), **{name: value})
    assert found() == []


def test_every_attribute_for_users_has_a_rule() -> None:
    annotated = {name for name in AbstractJob.__annotations__ if name.isupper()}
    engine = {"LEASED", "STAMP", "BEGUN", "UNBEGUN", "TRANSITIONS"}
    assert annotated - engine == {name for name in RULES if name.isupper()}


def test_independent_jobs_can_not_be_squashed(found: Found) -> None:
    queue("Folded", make_base_class(None), SQUASH_WAITING_JOBS=True)
    [message] = found()
    assert (message.id, type(message)) == ("parviraptor_celery.E010", Error)
    assert message.hint is not None
    assert "unique_key" in message.hint
