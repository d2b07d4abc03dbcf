"""The driver of this library. It uses public names only: what is measured is what users get."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.drivers.django_driver import DjangoDriver
from benchmarks.drivers.queue_driver import QueueDriver
from benchmarks.drivers.statistics import percentiles

WARM_UP = 50
LANES = 100


class JobQueue(DjangoDriver, QueueDriver):
    settings = "benchmarks.drivers.job_queue.settings"
    packages = ("Django", "celery", "kombu", "redis", "amqp", "psycopg")

    def enqueue_all(self, jobs: list[tuple[int, int]], is_laned: bool) -> None:
        queue = _queue(is_laned)
        queue.enqueue_many([queue(number=number, shop=lane) for number, lane in jobs])

    def enqueue_one(self, number: int, lane: int, is_laned: bool) -> None:
        _queue(is_laned).enqueue(number=number, shop=lane)

    def bulk(self, model: str, way: str, jobs: int) -> dict[str, Any]:
        """Time one transaction that inserts `jobs` rows, its COMMIT and hooks included.

        The ways: "enqueue_many" and "bulk_create". What a bare table gets as lane was computed
        before.
        """
        from django.db import transaction

        table = _model(model)
        insert = table.enqueue_many if way == "enqueue_many" else table.objects.bulk_create
        insert(_rows(model, LANES))
        rows = _rows(model, jobs)
        started = time.perf_counter()
        with transaction.atomic():
            insert(rows)
        seconds = time.perf_counter() - started
        return {"jobs": jobs, "rate": jobs / seconds, "us_a_row": 1e6 * seconds / jobs}

    def single(self, model: str, way: str, jobs: int) -> dict[str, Any]:
        """Time transactions that insert one row each, their COMMIT and hooks included.

        The ways: "enqueue" and "create".
        """
        from django.db import transaction

        table = _model(model)
        insert: Callable[..., Any] = table.enqueue if way == "enqueue" else table.objects.create
        times = []
        for number in range(WARM_UP + jobs):
            started = time.perf_counter()
            with transaction.atomic():
                insert(number=number, shop=number)
            times.append(1e3 * (time.perf_counter() - started))
        return {"jobs": jobs, **{f"one_{p}": v for p, v in percentiles(times[WARM_UP:])}}

    def fill_queue(self, rows: int, lanes: int, blocked: bool = False) -> dict[str, Any]:
        """Let that many copies of one job wait, without kicks.

        With `blocked` a row before them runs, as far as anybody can tell: elsewhere, for hours.
        """
        from django.db import connection

        queue = _queue(lanes > 0)
        seed = queue.objects.create(number=0, shop=-1 if blocked else 0)
        columns = {field.column: field.column for field in queue._meta.concrete_fields}
        del columns["id"]
        columns["number"] = "copy"
        table = queue._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
                f" FROM {table}, generate_series(1, %s) AS copy WHERE id = %s",
                [rows, seed.pk],
            )
            if blocked:
                cursor.execute(BLOCK.format(table=table), [seed.pk])
            else:
                cursor.execute(f"DELETE FROM {table} WHERE id = %s", [seed.pk])
        return {"rows": rows}


BLOCK = (
    "UPDATE {table} SET status = 'PROCESSING', attempt = 1, running_lane = lane,"
    " lease_until = now() + interval '1 day', begun_at = now() WHERE id = %s"
)


def _queue(is_laned: bool) -> Any:
    return _model("Laned" if is_laned else "Independent")


def _model(name: str) -> Any:
    from benchmarks.drivers.job_queue import models

    return getattr(models, name)


def _rows(model: str, number: int) -> list[Any]:
    """Return unsaved rows of a hundred lanes; a bare table's lanes are as many, and as mixed."""
    table = _model(model)
    lanes = [{"lane": f"{n:02}" * 16} if model == "LanedTable" else {} for n in range(LANES)]
    return [table(number=n, shop=n % LANES, **lanes[n % LANES]) for n in range(number)]


if __name__ == "__main__":
    JobQueue().main()
