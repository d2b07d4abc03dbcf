"""Cleaning big tables: every chunk costs the same, on each database and for both apps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jaiminho_celery import cleanup as event_cleanup
from jaiminho_celery.models import Event
from jaiminho_celery.states import EventStatus
from parviraptor_celery import cleanup as job_cleanup
from parviraptor_celery.clock import now
from tests.testapp.models import FreeJob

ROWS, CHUNK = 20_000, 1000
LONG_AGO = timedelta(days=60)


@dataclass(frozen=True)
class Kind:
    """Rows of one app that grow old, and what cleans them."""

    model: Any
    column: str
    make: Callable[[datetime], Any]
    clean: Callable[..., int]


KINDS = {
    "events": Kind(
        Event,
        "sent_at",
        lambda moment: Event(version=1, status="SENT", sent_at=moment),
        event_cleanup.clean,
    ),
    "jobs": Kind(
        FreeJob,
        "modification_date",
        lambda moment: FreeJob(status="PROCESSED", modification_date=moment),
        lambda using, *args, **kwargs: job_cleanup.clean(FreeJob, using, *args, **kwargs),
    ),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def fill(kind: Kind, using: str, rows: int = ROWS) -> None:
    """Write old rows, the newest first, one second apart."""
    first = timezone.now() - LONG_AGO
    made = [kind.make(first - timedelta(seconds=number)) for number in range(rows)]
    kind.model.objects.using(using).bulk_create(made, batch_size=1000)


def test_the_queries_of_a_chunk_do_not_grow_with_what_was_deleted(using: str, kind: Kind) -> None:
    fill(kind, using)
    young = kind.model.objects.using(using).create(
        **{"version": 1, "status": "SENT", "sent_at": timezone.now()} if kind.model is Event else {}
    )
    connection = connections[using]
    connection.queries_log.clear()

    with CaptureQueriesContext(connection) as captured:
        assert kind.clean(using) == ROWS

    selects = [q["sql"] for q in captured if q["sql"].startswith("SELECT")]
    deletes = [q["sql"] for q in captured if q["sql"].startswith("DELETE")]
    assert (len(selects), len(deletes)) == (ROWS // CHUNK + 1, ROWS // CHUNK)
    assert {sql.count(",") + 1 for sql in map(in_list, deletes)} == {CHUNK}
    bounds = [bound for sql in selects[1:] for bound in lower_bounds(sql, kind.column)]
    assert len(bounds) == len(selects) - 1, "each chunk but the first starts where one ended"
    assert bounds == sorted(set(bounds))
    assert list(kind.model.objects.using(using)) == [young]


def test_a_chunk_is_read_from_the_index_by_age_from_where_the_last_one_ended(
    using: str, kind: Kind
) -> None:
    fill(kind, using)
    connection = connections[using]
    with connection.cursor() as cursor:
        table = connection.ops.quote_name(kind.model._meta.db_table)
        cursor.execute(f"ANALYZE {'TABLE ' if connection.vendor == 'mysql' else ''}{table}")
    chunks: list[int] = []
    with CaptureQueriesContext(connection) as captured:
        kind.clean(using, chunks.append, is_stopped=lambda: len(chunks) == 2)
    second = [q["sql"] for q in captured if q["sql"].startswith("SELECT")][1]

    plan = explained(using, second)

    index = next(i.name for i in kind.model._meta.indexes if i.fields == [kind.column])
    assert index in plan
    match connection.vendor:
        case "sqlite":
            assert f"({kind.column}>? AND {kind.column}<?)" in plan
            assert "TEMP B-TREE" not in plan
        case "postgresql":
            assert re.search(rf"Index Cond: [^:]*.*{kind.column} >= ", plan)
            assert "Sort" not in plan
        case "mysql":
            assert "range" in plan
            assert "filesort" not in plan


def test_rows_with_the_same_time_are_all_deleted(
    using: str, kind: Kind, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the database stored the time by its own clock."""
    settings.JAIMINHO_CONFIG = {"TIME_TO_DELETE": timedelta(0)}
    monkeypatch.setattr(FreeJob, "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS", 0)
    fill(kind, using, 2500)
    kind.model.objects.using(using).update(**{kind.column: now()})
    assert kind.clean(using) == 2500


def test_is_stopped_after_a_chunk_with_what_was_done(using: str, kind: Kind) -> None:
    fill(kind, using, 3000)
    totals: list[int] = []
    assert kind.clean(using, totals.append, is_stopped=lambda: len(totals) == 2) == 2000
    assert totals == [1000, 2000]
    assert kind.model.objects.using(using).count() == 1000


def test_skipped_events_go_by_their_last_transition(using: str) -> None:
    old = timezone.now() - LONG_AGO
    rows = Event.objects.using(using)
    for status in (EventStatus.SKIPPED, EventStatus.DEAD, EventStatus.WAITING):
        rows.create(version=1, status=status, modified_at=old, created_at=old)
    rows.create(version=1, status=EventStatus.SKIPPED, created_at=old)
    assert event_cleanup.count_old(using, EventStatus.SKIPPED) == 1
    assert event_cleanup.clean(using, state=EventStatus.SKIPPED) == 1
    assert sorted(rows.values_list("status", flat=True)) == ["DEAD", "SKIPPED", "WAITING"]


def in_list(sql: str) -> str:
    """Return what stands between the brackets of IN."""
    found = re.search(r" IN \(([^)]*)\)", sql)
    assert found, sql[:200]
    return found[1]


def lower_bounds(sql: str, column: str) -> list[str]:
    return re.findall(rf"{column}[`\"]? >= '?([-0-9: .]+)", sql)


def explained(using: str, sql: str) -> str:
    """Return the plan, as the database tells it."""
    connection = connections[using]
    prefix = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
    with connection.cursor() as cursor:
        cursor.execute(
            prefix + quoted_times(sql) if connection.vendor == "sqlite" else prefix + sql
        )
        return " ".join(str(column) for row in cursor.fetchall() for column in row)


def quoted_times(sql: str) -> str:
    """SQLite's log shows times without the quotes that they need."""
    return re.sub(r"(?<!')(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)(?!')", r"'\1'", sql)
