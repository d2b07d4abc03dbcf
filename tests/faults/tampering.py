"""Every column of a row, changed past the model to every kind of value that its table takes."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from django.db import Error, connections, models, transaction

from tests.faults import IS_WIDE
from tests.faults.canaries import ORDERS

EDGES = ["0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"]
MOMENTS: dict[str, list[Any]] = {
    "sqlite": EDGES,
    "postgresql": [*EDGES, "infinity", *(["294276-01-01"] if IS_WIDE else [])],
    "mysql": [*EDGES, "0000-00-00 00:00:00"],
}
NUMBERS: list[Any] = [-1, 32_767, 2**31 - 1, 2**63 - 1]
TEXTS: list[Any] = ["", ORDERS, "z" * 32]
if IS_WIDE:
    NUMBERS += [0, 1, 65_535, 2**32 - 1, -(2**63)]
    TEXTS += [" ", "x", "\U0001f600", "%", "'; --", "0" * 32, "F" * 32, "x" * 99]


SIGNED = {"uuid", "stream", "key", "strategy", "name", "version", "body", "signature"}
"""What decides about what a row does."""

FREE = {
    *("id", "status", "created_at", "modified_at", "sent_at", "run_after", "error_count"),
    *("error_message", "fingerprint", "lane", "running_lane", "attempt", "lease_until"),
    "leased_by",
}
"""What decides about when and whether it does it, and what became of it."""


@dataclass(frozen=True)
class Tampering:
    """A column, and what was written into it."""

    column: str
    value: Any


def values_for(field: Any, vendor: str) -> list[Any]:
    """Return hostile values for a column; not all are of its type, where the engine takes them."""
    match field:
        case models.DateTimeField():
            found: list[Any] = MOMENTS[vendor]
        case models.UUIDField():
            found = ["12345678123456781234567812345678"]
        case models.BooleanField():
            found = [False, True]
        case models.IntegerField():
            found = NUMBERS
        case _:
            choices = [choice for choice, _ in field.flatchoices]
            found = [*choices, *TEXTS]
    return [None, *found]


def tampered(
    using: str, model: Any, make: Callable[[int], list[int]], *, leave_out: Container[str] = ()
) -> dict[int, Tampering]:
    """Make a row for each change, and change it; return those that the database let through."""
    vendor = connections[using].vendor
    changes = [
        Tampering(field.name, value)
        for field in model._meta.concrete_fields
        if not (field.primary_key or field.generated or field.name in leave_out)
        for value in values_for(field, vendor)
    ]
    changed = dict(zip(make(len(changes)), changes, strict=True))
    refused = [pk for pk, change in changed.items() if not write(using, model, pk, change)]
    model.rows(using).filter(pk__in=refused).delete()
    return {pk: change for pk, change in changed.items() if pk not in refused}


def write(using: str, model: Any, pk: int, change: Tampering) -> bool:
    """Change one row by SQL; False when the database refuses."""
    connection = connections[using]
    column = model._meta.get_field(change.column).column
    table, name = map(connection.ops.quote_name, (model._meta.db_table, column))
    try:
        with transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {name} = %s WHERE id = %s", [change.value, pk])
    except (Error, OverflowError, ValueError):
        return False
    return True
