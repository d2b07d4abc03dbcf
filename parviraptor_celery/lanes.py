"""Lanes: jobs with equal dependent values share one, and run in it one after another.

Python's and the database's idea of "equal" differ (collations, the scale of a Decimal), so a
lane is a hash over what the fields would store, computed before the row is inserted.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import models

from .exceptions import InvalidDependentField, LaneChanged

LANE_LENGTH = 32
REFUSED_FIELDS = (models.FloatField, models.JSONField, models.BinaryField, models.ManyToManyField)


def lane_of(job: models.Model, dependent_fields: list[str]) -> str:
    """Return the lane of ``job``: 32 hexadecimal digits (BLAKE2b-128 of canonical JSON)."""
    values = [_canonical(job._meta.get_field(name), job) for name in dependent_fields]
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=LANE_LENGTH // 2).hexdigest()


def _canonical(field: Any, job: models.Model) -> list[str | None]:
    value = field.get_prep_value(field.to_python(getattr(job, field.attname)))
    if isinstance(value, Decimal) and isinstance(field, models.DecimalField):
        value = value.quantize(Decimal(1).scaleb(-field.decimal_places)) + 0  # -0 is 0
    return _tagged(value)


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


class LaneField(models.CharField):
    """The lane of a job, filled in by itself; NULL in an independent queue.

    It is computed in ``pre_save``, which ``save()`` and ``bulk_create()`` both call.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.update(max_length=LANE_LENGTH, null=True, editable=False)
        super().__init__(**kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        for fixed in ("max_length", "null", "editable"):
            kwargs.pop(fixed, None)
        return name, path, args, kwargs

    def pre_save(self, model_instance: models.Model, add: bool) -> str | None:
        dependent_fields = getattr(model_instance, "dependent_fields", None)
        if dependent_fields is None:
            return None
        lane = lane_of(model_instance, dependent_fields)
        before = getattr(model_instance, self.attname)
        if not add and before is not None and before != lane:
            raise LaneChanged(
                f"{model_instance._meta.label} {model_instance.pk}: {', '.join(dependent_fields)} "
                "decide in which lane a job runs and can't change after the job was created. "
                "Create a new job instead."
            )
        setattr(model_instance, self.attname, lane)
        return lane
