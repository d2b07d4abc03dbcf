"""Wrong jobs are refused by name before anything is written, in every way of creating them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Value

from parviraptor_celery import lanes, storable
from parviraptor_celery.exceptions import (
    DuplicateUniqueKey,
    InvalidDependentField,
    InvalidDependentValue,
    InvalidJobOption,
    LaneChanged,
    MissingDependentField,
    NotALane,
    NotANewJob,
    UnknownDatabase,
    UnknownField,
)
from parviraptor_celery.models import AbstractJob, AbstractJobFactory
from tests.testapp.models import FifoJob, FreeJob, LaneJob, Note, RequiringJob, TypedJob

Create = Callable[..., Any]


def _enqueue(queue: Any, using: str, **fields: Any) -> None:
    queue.enqueue(using=using, **fields)


def _enqueue_many(queue: Any, using: str, **fields: Any) -> None:
    queue.enqueue_many([queue(**sound(queue)), queue(**fields)], using=using)


def _create(queue: Any, using: str, **fields: Any) -> None:
    queue.objects.using(using).create(**fields)


def _bulk_create(queue: Any, using: str, **fields: Any) -> None:
    queue.objects.using(using).bulk_create([queue(**sound(queue)), queue(**fields)])


@pytest.fixture(
    params=[_enqueue, _enqueue_many, _create, _bulk_create], ids=lambda way: way.__name__
)
def create(request: pytest.FixtureRequest) -> Create:
    """Each way of creating a job; those for many bring a sound one along."""
    way: Create = request.param
    return way


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def sound(queue: Any) -> dict[str, Any]:
    return {"shop": "sound", "day": date(2024, 7, 1)} if queue is RequiringJob else {}


def refused(error: type[Exception], using: str, queue: Any, create: Create, **fields: Any) -> str:
    """Assert that a job is refused, that nothing is written, and that one can go on; say why."""
    with transaction.atomic(using=using):
        with pytest.raises(error) as caught:
            create(queue, using, **fields)
        create(queue, using, **sound(queue))
    rows = queue.rows(using)
    assert rows.count() == (2 if create in (_enqueue_many, _bulk_create) else 1)
    rows.all().delete()
    return str(caught.value)


# The values that decide about the lane


def test_a_dependent_field_without_default_must_be_given(using: str, create: Create) -> None:
    day = date(2024, 7, 1)
    for fields, left_out in [
        ({}, "shop, day"),
        ({"shop": "a"}, "day"),
        ({"day": day}, "shop"),
        ({"shop": None, "day": day}, "shop"),
    ]:
        said = refused(MissingDependentField, using, RequiringJob, create, **fields)
        assert f"testapp.RequiringJob: {left_out} must be given" in said


def test_an_empty_text_that_is_given_is_a_value(using: str, create: Create) -> None:
    create(RequiringJob, using, shop="", day=date(2024, 7, 1))
    job = RequiringJob(day=date(2024, 7, 1))
    job.shop = "set afterwards"
    job.save(using=using)
    RequiringJob.rows(using).filter(shop="").first().save()


WRONG_VALUES = [
    ("count", "abc"),
    ("count", {}),
    ("amount", Decimal("NaN")),
    ("amount", Decimal("sNaN")),
    ("amount", Decimal("Infinity")),
    ("amount", Decimal(10) ** 40),
    ("amount", "1,50"),
    ("serial", "no UUID"),
    ("flag", "perhaps"),
    ("day", "2024-13-01"),
    ("moment", "noon"),
    ("note_id", "first"),
    ("count", F("attempt") + 1),
    ("text", Value("a")),
    ("text", "x" * 41),
    ("text", "a\0b"),
    ("text", "half a pair \ud83d"),
    ("count", 2**31),
    ("count", "-2147483649"),
    ("count", 1.5),
    ("count", Decimal("1.5")),
    ("count", 1e300),
    ("amount", Decimal("123456789.00")),
    ("amount", Decimal("99999999.999")),
    ("amount", "-100000000"),
    ("note_id", 2**63),
    ("note_id", 1.5),
    ("moment", datetime.max.replace(tzinfo=timezone(-timedelta(hours=14)))),
]
STORED_VALUES = [
    ("text", "ä" * 40),
    ("text", "\U0001f600"),
    ("count", 2**31 - 1),
    ("count", -(2**31)),
    ("count", 2.0),
    ("count", Decimal(3)),
    ("count", "12"),
    ("amount", Decimal("99999999.99")),
    ("amount", Decimal("0.994")),
    ("amount", 7),
    ("moment", datetime(1000, 1, 1, tzinfo=UTC)),
    ("day", date.max),
]


def test_a_dependent_value_must_be_one_that_its_field_can_store(using: str, create: Create) -> None:
    for name, value in WRONG_VALUES:
        said = refused(InvalidDependentValue, using, TypedJob, create, **{name: value})
        field = name.removesuffix("_id")
        assert f"testapp.TypedJob.{field} decides in which lane a job runs" in said


def test_what_the_field_can_store_is_taken(using: str) -> None:
    for name, value in STORED_VALUES:
        job = TypedJob.enqueue(using=using, **{name: value})
        row = TypedJob.rows(using).get(pk=job.pk)
        assert getattr(row, name) == TypedJob(**{name: value})._meta.get_field(name).to_python(
            round(value, 2) if isinstance(value, Decimal) else value
        )
        row.save()  # its lane, told by the stored value, is the same


def test_a_value_is_looked_at_again_when_a_lane_is_named_and_when_a_job_is_saved(
    using: str,
) -> None:
    job = LaneJob.enqueue(using=using)
    for wrong in ({"shop": "x" * 41}, {"shop": "\0"}, {"number": 2**31}):
        with pytest.raises(NotALane):
            LaneJob.pause(using=using, **{"shop": "a", "number": 1, **wrong})
        row = LaneJob.rows(using).get(pk=job.pk)
        for name, value in wrong.items():
            setattr(row, name, value)
        with pytest.raises(InvalidDependentValue), transaction.atomic(using=using):
            row.save()


def test_an_address_must_be_one_and_a_key_to_a_key_is_looked_at_as_what_it_stores() -> None:
    address = models.GenericIPAddressField()
    assert storable.problem_with(address, "::1", "::1") is None
    with pytest.raises(ValidationError):
        storable.problem_with(address, "no address", "no address")
    field = TypedJob._meta.get_field("note")
    assert storable.stored_as(field) is Note._meta.pk
    assert "must lie between" in str(storable.problem_with(field, 2**63, 2**63))


def test_the_error_tells_no_values() -> None:
    with pytest.raises(InvalidDependentValue) as caught:
        TypedJob.enqueue(count="SECRET")
    assert "SECRET" not in str(caught.value)


def test_a_field_that_can_not_order_jobs_is_refused_without_the_checks_too(
    using: str, create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = LaneJob._meta.get_field
    for name, field, said in [
        ("shopp", None, "testapp.LaneJob depends on 'shopp', which is not one of its fields"),
        ("shop", models.FloatField(), "testapp.LaneJob.shop is a FloatField: equal values"),
        ("shop", models.JSONField(), "testapp.LaneJob.shop is a JSONField: equal values"),
        ("shop", models.BinaryField(), "testapp.LaneJob.shop is a BinaryField: equal values"),
        ("shop", models.ManyToManyField(Note), "testapp.LaneJob.shop is a ManyToManyField"),
        ("shop", models.DateField(auto_now=True), "shop is a DateField: its value is not known"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(LaneJob, "dependent_fields", [name])
            if field is not None:
                field.set_attributes_from_name(name)
                field.concrete = field.column is not None
                patch.setattr(LaneJob._meta, "get_field", lambda asked, field=field: field)
            _forget_lanes()
            with pytest.raises(InvalidDependentField, match=re.escape(said)):
                create(LaneJob, using)
        _forget_lanes()
    assert known("shop") is LaneJob._meta.get_field("shop")
    assert not LaneJob.rows(using).exists()


def _forget_lanes() -> None:
    lanes.required_fields.cache_clear()
    lanes._lanes.cache_clear()


# The other arguments


def test_a_field_that_the_queue_lacks_is_named(using: str) -> None:
    for name in ("shopp", "Shop", "shop__in"):
        said = refused(UnknownField, using, LaneJob, _enqueue_or_create(name))
        assert f"testapp.LaneJob has no field {name}" in said


def _enqueue_or_create(name: str) -> Create:
    calls = iter([{name: "a"}, {}])
    return lambda queue, using: queue.enqueue(using=using, **next(calls))


def test_a_due_time_must_be_one_that_every_database_can_store(using: str) -> None:
    for run_after in [
        "tomorrow",
        1.5,
        date(2024, 7, 1),
        datetime(2024, 7, 1),
        timedelta(seconds=-1),
        timedelta(days=10**7),
        timedelta.max,
        datetime(999, 12, 31, tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=14))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    ]:
        said = refused(InvalidJobOption, using, FreeJob, _enqueue, run_after=run_after)
        assert said.startswith("testapp.FreeJob: run_after ")


def test_a_due_time_is_looked_at_in_every_way_of_creating_a_job(using: str, create: Create) -> None:
    for run_after in ("tomorrow", 1.5, timedelta(seconds=-1), datetime(999, 12, 31, tzinfo=UTC)):
        said = refused(InvalidJobOption, using, FreeJob, create, run_after=run_after)
        assert said.startswith("testapp.FreeJob: run_after ")


def test_the_last_moment_that_can_be_stored_is_taken(using: str, create: Create) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    create(FreeJob, using, run_after=last)
    assert FreeJob.rows(using).filter(run_after=last).count() == 1


def test_a_priority_must_be_a_small_whole_number(using: str, create: Create) -> None:
    for priority in ("1", 1.0, None, True, 2**15, -(2**15) - 1, 2**70):
        said = refused(InvalidJobOption, using, FreeJob, create, priority=priority)
        assert said.startswith("testapp.FreeJob: priority must ")
    for end in (2**15 - 1, -(2**15)):
        create(FreeJob, using, priority=end)
        assert FreeJob.rows(using).filter(priority=end).exists()


def test_a_unique_key_must_be_a_text_that_fits(using: str, create: Create) -> None:
    for key in ("", " ", 7, b"key", ["key"], "k" * 129, "a\0b"):
        said = refused(InvalidJobOption, using, FreeJob, create, unique_key=key)
        assert said.startswith("testapp.FreeJob: unique_key ")


def test_the_longest_key_is_taken_and_none_is_no_key(using: str, create: Create) -> None:
    create(FreeJob, using, unique_key="ä" * 128)
    for _ in range(2):
        create(FreeJob, using, unique_key=None)


def test_the_key_of_a_waiting_job_is_refused_in_every_way(using: str, create: Create) -> None:
    LaneJob.enqueue(using=using, unique_key="nightly")
    with transaction.atomic(using=using):
        with pytest.raises(DuplicateUniqueKey, match="'nightly' belongs to a job that is waiting"):
            create(LaneJob, using, unique_key="nightly")
        create(LaneJob, using, unique_key="weekly")
    keys = LaneJob.rows(using).filter(unique_key__isnull=False).order_by("id")
    assert list(keys.values_list("unique_key", flat=True)) == ["nightly", "weekly"]


def test_a_key_that_two_jobs_of_one_list_have_is_refused(using: str) -> None:
    jobs = [FreeJob(unique_key=key) for key in ("a", "b", "a")]
    for write in (
        FreeJob.objects.using(using).bulk_create,
        partial(FreeJob.enqueue_many, using=using),
    ):
        with pytest.raises(DuplicateUniqueKey, match="'a' is given to two of these jobs"):
            write(jobs)
    assert not FreeJob.rows(using).exists()


def test_jobs_that_are_over_share_a_key(using: str) -> None:
    made = [FreeJob(unique_key="a", status=status) for status in ("NEW", "PROCESSED", "FAILED")]
    FreeJob.rows(using).bulk_create(made)
    assert FreeJob.rows(using).filter(unique_key="a").count() == 3


@pytest.mark.parametrize("alias", ["nowhere", "", 7], ids=repr)
def test_an_unknown_database_is_named(alias: Any) -> None:
    for call in (
        lambda: FreeJob.enqueue(using=alias),
        lambda: FreeJob.enqueue_many([], using=alias),
    ):
        with pytest.raises(
            UnknownDatabase, match="is not an alias of DATABASES, which has default"
        ):
            call()


def test_only_new_jobs_of_the_queue_can_be_enqueued_together(using: str) -> None:
    saved = FreeJob.enqueue(using=using)
    proxy = type("ProxyOfFree", (), {})()
    for stranger, said in [
        (FifoJob(), "a FifoJob"),
        (saved, f"job {saved.pk}, which has been saved already"),
        (proxy, "a ProxyOfFree"),
        (None, "a NoneType"),
    ]:
        with pytest.raises(NotANewJob, match=f"takes new jobs of it, not {said}"):
            FreeJob.enqueue_many([FreeJob(), stranger], using=using)
    assert FreeJob.rows(using).count() == 1


def test_a_job_of_another_queue_is_no_job_of_this_one(using: str) -> None:
    rows = FifoJob.rows(using)
    for stranger, said in [(FreeJob(), "a FreeJob"), (None, "a NoneType"), (Note(), "a Note")]:
        with pytest.raises(NotANewJob, match=f"testapp.FifoJob takes jobs of it, not {said}"):
            rows.bulk_create([FifoJob(), stranger])
    assert not rows.exists()


@pytest.mark.parametrize("fields", [None, [], ["shop"]])
def test_a_base_class_is_no_queue(fields: list[str] | None) -> None:
    base: type[AbstractJob] = AbstractJobFactory.make_base_class(fields)
    with pytest.raises(TypeError, match="Abstract models cannot be instantiated"):
        base.enqueue()


# A lane that is changed after the insert


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "save": lambda row, rows: row.save(),
    "update_fields": lambda row, rows: row.save(update_fields=["shop"]),
    "update": lambda row, rows: rows.update(shop="b"),
    "update by F": lambda row, rows: rows.update(shop=F("script")),
    "bulk_update": lambda row, rows: rows.bulk_update([row], ["shop"]),
    "update_or_create": lambda row, rows: rows.update_or_create(pk=row.pk, defaults={"shop": "b"}),
    "bulk_create": lambda row, rows: rows.bulk_create(
        [row], update_conflicts=True, update_fields=["shop"], unique_fields=["id"]
    ),
}


def test_a_lane_can_not_be_changed(using: str) -> None:
    job = LaneJob.enqueue(using=using, shop="a")
    rows = LaneJob.objects.using(using)
    for change in CHANGES.values():
        row = rows.get()
        row.shop = "b"
        with pytest.raises(LaneChanged, match="shop"), transaction.atomic(using=using):
            change(row, rows)
        now = rows.get()
        assert (now.shop, now.lane) == ("a", job.lane)


def test_a_lane_can_not_be_changed_to_what_an_expression_will_yield(using: str) -> None:
    LaneJob.enqueue(using=using, shop="a")
    row = LaneJob.rows(using).get()
    row.shop = F("script")
    for options in ({}, {"update_fields": ["shop"]}):
        with pytest.raises(InvalidDependentValue, match="expression"):
            row.save(**options)
    assert LaneJob.rows(using).get().shop == "a"


# What only the database sees


def test_a_job_can_not_be_born_running_or_in_a_state_that_there_is_not(
    using: str, create: Create
) -> None:
    for status in ("PROCESSING", "DONE", "", None, 7, [], "new"):
        said = refused(InvalidJobOption, using, FreeJob, create, status=status)
        assert said.startswith("testapp.FreeJob: status ")


@pytest.mark.parametrize("queue", [FreeJob, LaneJob])
def test_a_job_can_be_born_in_any_state_of_rest(using: str, create: Create, queue: Any) -> None:
    for status in ("NEW", "PROCESSED", "SQUASHED", "FAILED", "IGNORED", "DEFERRED"):
        create(queue, using, status=status, unique_key=status, error_message="from elsewhere")
        [row] = queue.rows(using).filter(unique_key=status)
        assert (row.status, row.error_message) == (status, "from elsewhere")
        assert row.waiting_key == (status if status in ("NEW", "DEFERRED") else None)
