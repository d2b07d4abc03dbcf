"""Lanes: jobs with equal dependent values share one, and run in it one after another.

Python's and the database's idea of "equal" differ (collations, the scale of a Decimal), so a
lane is a hash over what the fields would store, computed before the row is inserted.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models

from .derived import DerivedField
from .exceptions import (
    InvalidDependentField,
    InvalidDependentValue,
    LaneChanged,
    MissingDependentField,
)
from .storable import problem_with

LANE_LENGTH = 32
REFUSED_FIELDS = (
    models.FloatField,
    models.JSONField,
    models.BinaryField,
    models.FileField,
    models.GeneratedField,
    models.ManyToManyField,
)
"""Fields whose equality can't be told, or whose value is not known before the INSERT."""

REMEMBERED_LANES = 1024
_PLAIN_FIELDS = (
    *(models.CharField, models.TextField, models.SlugField, models.BooleanField),
    *(models.SmallIntegerField, models.IntegerField, models.BigIntegerField),
    *(models.PositiveIntegerField, models.AutoField, models.BigAutoField),
    *(models.DecimalField, models.UUIDField),
)
_PLAIN_VALUES = frozenset({str, int, bool, Decimal, UUID, type(None)})


def lane_of(job: models.Model, dependent_fields: Sequence[str]) -> str:
    """Return the lane of ``job``: 32 hexadecimal digits (BLAKE2b-128 of canonical JSON).

    Raises:
        InvalidDependentField: there is no such field, or it can't order jobs.
        InvalidDependentValue: the job has no value in one of them, or one that can't be stored.
    """
    return _lanes(type(job), tuple(dependent_fields)).of(job)


def wrong_values(job: models.Model, dependent_fields: Sequence[str]) -> dict[str, str]:
    """Return what is wrong with the values that the lane depends on, by the name of the field."""
    return _lanes(type(job), tuple(dependent_fields)).problems_of(job)


def dependents_of(job: Any) -> dict[str, Any]:
    """Return the values that the lane of ``job`` depends on; none in an independent queue."""
    if not job.dependent_fields:
        return {}
    queue: type[models.Model] = type(job)
    names = _lanes(queue, tuple(job.dependent_fields)).names
    return {name: getattr(job, name) for name in names}


def refuse_another_lane(job: Any, before: Mapping[str, Any]) -> None:
    """Refuse values that are not those of ``before``, unless they mean the same lane.

    Where nothing was set, nothing is refused, whatever the stored lane was made of.

    Raises:
        LaneChanged: a dependent field was changed.
        InvalidDependentValue: it was changed to what can't be stored.
    """
    if not dependents_of(job).items() <= before.items():
        job._meta.get_field("lane").pre_save(job, False)


def problem_of(field: Any) -> str | None:
    """Return why ``field`` can't be one that orders jobs, or None."""
    target = getattr(field, "target_field", field)
    if isinstance(field, REFUSED_FIELDS) or isinstance(target, REFUSED_FIELDS):
        return "equal values of it can't be told reliably"
    if not getattr(field, "concrete", False):
        return "it has no column of its own"
    if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
        return "its value is not known before the job is inserted"
    return None


@functools.cache
def required_fields(queue: type[models.Model], names: tuple[str, ...]) -> tuple[Any, ...]:
    """Return those of the dependent fields that each new job has to be given."""
    fields: list[Any] = [_field(queue, name) for name in names]
    return tuple(field for field in fields if not (field.null or field.has_default()))


class _Lanes:
    """Tells the lanes of one queue's jobs; what depends on the class only is found out once."""

    def __init__(self, queue: type[models.Model], names: tuple[str, ...]) -> None:
        self.label = queue._meta.label
        self.fields = [_field(queue, name) for name in names]
        self.names = [field.attname for field in self.fields]
        # Where the text of a value follows from the value alone; for a moment, say, it doesn't.
        self.is_plain = all(
            type(getattr(field, "target_field", field)) in _PLAIN_FIELDS for field in self.fields
        )
        self.known = functools.lru_cache(REMEMBERED_LANES, typed=True)(self._hashed)

    def of(self, job: models.Model) -> str:
        values = [getattr(job, name) for name in self.names]
        if self.is_plain and _PLAIN_VALUES.issuperset(map(type, values)):
            try:
                return self.known(*values)
            except TypeError:  # a signalling NaN has no hash; what is wrong with it is said below
                pass
        return self._hashed(*values)

    def problems_of(self, job: models.Model) -> dict[str, str]:
        found = dict[str, str]()
        for field in self.fields:
            try:
                self._canonical(field, getattr(job, field.attname))
            except InvalidDependentValue as error:
                found[field.name] = str(error)
        return found

    def _hashed(self, *values: object) -> str:
        pairs = zip(self.fields, values, strict=True)
        parts = [self._canonical(field, value) for field, value in pairs]
        text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=LANE_LENGTH // 2).hexdigest()

    def _canonical(self, field: Any, value: object) -> list[str | None]:
        if value is None and not field.null:
            raise missing(self.label, [field.name])
        if hasattr(value, "resolve_expression"):
            raise InvalidDependentValue(
                f"{self.label}.{field.name} decides in which lane a job runs, so its value has to "
                f"be known before the job is written; {type(value).__name__} is an expression."
            )
        try:
            stored = field.get_prep_value(field.to_python(value))
            if isinstance(stored, Decimal) and isinstance(field, models.DecimalField):
                step = Decimal(1).scaleb(-field.decimal_places)
                stored = stored.quantize(step) + 0  # -0 is 0
            if problem := problem_with(field, value, stored):
                raise self._invalid(field, problem)
            return _tagged(stored)
        except InvalidDependentField:
            raise
        except (ValidationError, TypeError, ValueError, ArithmeticError) as error:
            kinds = f"a {type(value).__name__} that is no value for its {type(field).__name__}"
            raise self._invalid(field, f"was given {kinds}") from error

    def _invalid(self, field: Any, problem: str) -> InvalidDependentValue:
        return InvalidDependentValue(
            f"{self.label}.{field.name} decides in which lane a job runs, and {problem}."
        )


_lanes = functools.cache(_Lanes)


def _field(queue: type[models.Model], name: str) -> Any:
    try:
        field = queue._meta.get_field(name)
    except FieldDoesNotExist as error:
        raise InvalidDependentField(
            f"{queue._meta.label} depends on {name!r}, which is not one of its fields."
        ) from error
    if field.name != name:
        raise InvalidDependentField(
            f"{queue._meta.label} depends on {name!r}, which is a column: write {field.name!r}."
        )
    if problem := problem_of(field):
        raise InvalidDependentField(
            f"{queue._meta.label}.{name} is a {type(field).__name__}: {problem}, so it can't "
            "order jobs."
        )
    return field


def missing(label: str, names: list[str]) -> MissingDependentField:
    """Return the error that says which dependent fields a job was not given."""
    return MissingDependentField(
        f"{label}: {', '.join(names)} must be given, as it decides in which lane the job runs."
    )


def _tagged(value: object) -> list[str | None]:
    """Return ``value`` as a type tag and a text, so that 1 and "1" are different lanes."""
    match value:
        case None:
            return ["none", None]
        case bool():
            return ["bool", str(value)]
        case int():
            return ["int", str(int(value))]
        case str():
            return ["str", str(value)]
        case Decimal():
            return ["decimal", format(value, "f")]
        case datetime():
            moment = value.astimezone(UTC) if value.tzinfo else value
            return ["datetime", moment.isoformat()]
        case date() | time():
            return [type(value).__name__, value.isoformat()]
        case timedelta():
            return ["timedelta", str(value / timedelta(microseconds=1))]
        case UUID():
            return ["uuid", value.hex]
    raise InvalidDependentField(
        f"A dependent field holds a {type(value).__name__}, which can't name a lane. "
        "Use text, whole numbers, decimals, dates, UUIDs or foreign keys."
    )


class LaneField(DerivedField):
    """The lane of a job, filled in by itself; NULL in an independent queue."""

    LENGTH = LANE_LENGTH

    def pre_save(self, model_instance: models.Model, add: bool) -> str | None:
        if add:
            known = model_instance.__dict__.pop("_lane_found", None)
            return known or self._set(model_instance, new_lane(model_instance))
        before, lane = getattr(model_instance, self.attname), _lane(model_instance)
        if before is not None and lane is not None and before != lane:
            names: list[str] = getattr(model_instance, "dependent_fields", [])
            raise LaneChanged(
                f"{model_instance._meta.label} {model_instance.pk}: {', '.join(names)} "
                "decide in which lane a job runs and can't change after the job was created. "
                "Create a new job instead."
            )
        return self._set(model_instance, lane)

    def _set(self, job: models.Model, lane: str | None) -> str | None:
        setattr(job, self.attname, lane)
        return lane


def new_lane(job: Any) -> str | None:
    """Return the lane of a job that is to be inserted, None in an independent queue.

    Raises:
        MissingDependentField: the job was not given what its lane depends on.

    And what ``lane_of()`` raises.
    """
    if "_left_out" in job.__dict__:
        _refuse_missing(job)
    return _lane(job)


def _lane(job: Any) -> str | None:
    names = getattr(job, "dependent_fields", None)
    return None if names is None else lane_of(job, names)


def _refuse_missing(job: Any) -> None:
    """Refuse a job that was not given a text that its lane depends on.

    Django would store an empty one. What a job was made with, ``GuardedRow`` notes.
    """
    left_out = [
        field.name for field in job._left_out if getattr(job, field.attname) == field.get_default()
    ]
    if left_out:
        raise missing(job._meta.label, left_out)
