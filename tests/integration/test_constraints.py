"""What the database itself refuses, whoever writes: each constraint by raw SQL, on each engine."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connections, transaction

from parviraptor_celery.indexes import OneOf
from tests.testapp.models import LaneJob

NOW = "2024-07-01 12:00:00"


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def write(using: str, pk: int, **columns: Any) -> None:
    """Write `columns` past every rule of the library."""
    table = connections[using].ops.quote_name(LaneJob._meta.db_table)
    assignments = ", ".join(f"{name} = %s" for name in columns)
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {assignments} WHERE id = %s", [*columns.values(), pk])


REFUSED: dict[str, dict[str, Any]] = {
    "a state that there is not": {"status": "DONE"},
    "a state in other letters": {"status": "Proc"},
    "running without a lease": {"status": "PROCESSING"},
    "running outside of its lane": {"status": "PROCESSING", "lease_until": NOW},
    "running in another lane": {
        "status": "PROCESSING",
        "lease_until": NOW,
        "running_lane": "0" * 32,
    },
    "a lease while it waits": {"lease_until": NOW},
    "a lease when it is over": {"status": "PROCESSED", "lease_until": NOW},
    "a running lane while it waits": {"running_lane": "0" * 32},
    "a running lane when it failed": {"status": "FAILED", "running_lane": "0" * 32},
    "a key while it runs": {
        "status": "PROCESSING",
        "lease_until": NOW,
        "lane": None,
        "waiting_key": "k",
    },
    "a key when it is over": {"status": "PROCESSED", "waiting_key": "k"},
    "a key when it failed": {"status": "FAILED", "waiting_key": "k"},
}
TAKEN: dict[str, dict[str, Any]] = {
    "running": {
        "status": "PROCESSING",
        "lease_until": NOW,
        "lane": "0" * 32,
        "running_lane": "0" * 32,
    },
    "running without order": {
        "status": "PROCESSING",
        "lease_until": NOW,
        "lane": None,
        "running_lane": None,
    },
    "deferred with a key": {
        "status": "DEFERRED",
        "lease_until": None,
        "running_lane": None,
        "waiting_key": "k",
    },
    "squashed": {"status": "SQUASHED", "waiting_key": None},
    "ignored": {"status": "IGNORED"},
    "failed": {"status": "FAILED"},
    "processed": {"status": "PROCESSED"},
    "new": {"status": "NEW"},
}


def test_a_row_that_no_job_can_be_in_is_refused(using: str) -> None:
    job = LaneJob.enqueue(using=using)
    before = LaneJob.rows(using).values().get()
    for what, columns in REFUSED.items():
        with pytest.raises(DatabaseError):
            write(using, job.pk, **columns)
            pytest.fail(f"{what} was taken")
    assert LaneJob.rows(using).values().get() == before


def test_every_row_that_a_job_can_be_in_is_taken(using: str) -> None:
    job = LaneJob.enqueue(using=using)
    for columns in TAKEN.values():
        write(using, job.pk, **columns)
        assert LaneJob.rows(using).filter(pk=job.pk, status=columns["status"]).exists()


@pytest.mark.parametrize("column", ["running_lane", "waiting_key"])
def test_two_rows_can_not_have_the_same_lane_or_key(using: str, column: str) -> None:
    first, second = (LaneJob.enqueue(using=using) for _ in range(2))

    def columns(value: str) -> dict[str, Any]:
        if column == "waiting_key":
            return {"waiting_key": value}
        return {"status": "PROCESSING", "lease_until": NOW, "lane": value, "running_lane": value}

    write(using, first.pk, **columns("0" * 32))
    with pytest.raises(DatabaseError):
        write(using, second.pk, **columns("0" * 32))
    write(using, second.pk, **columns("1" * 32))


def test_a_form_tells_a_wrong_state_before_the_database_does(using: str) -> None:
    job = LaneJob.enqueue(using=using)
    job.status = "DONE"
    with pytest.raises(ValidationError, match="_status"):
        job.validate_constraints()
    job.status, job.waiting_key = "FAILED", "k"
    with pytest.raises(ValidationError, match="_key"):
        job.validate_constraints()
    job.status = "DEFERRED"
    job.validate_constraints()


def test_what_a_check_lists_is_plain_words() -> None:
    with pytest.raises(ValueError, match="not plain words"):
        OneOf("status", "NEW", "it's")
