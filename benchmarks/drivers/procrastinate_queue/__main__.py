from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import procrastinate
import psycopg

from benchmarks.drivers import environment, ledger
from benchmarks.drivers.queue_driver import QueueDriver

CHUNK = 5000
INSERT = """
INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args)
VALUES ('default', 'benchmarks.nothing', %s, %s::jsonb)
"""


def application(connector: procrastinate.BaseConnector) -> tuple[procrastinate.App, Any]:
    """Return the application and its one task."""
    app = procrastinate.App(connector=connector)

    @app.task(name=environment.TASK)
    async def nothing(number: int, lane: int) -> None:
        ledger.note(number, lane)

    return app, nothing


def conninfo() -> str:
    return os.environ[environment.DATABASE_VARIABLE]


class Procrastinate(QueueDriver):
    packages = ("procrastinate", "psycopg")

    def migrate(self) -> None:
        app, _ = application(procrastinate.SyncPsycopgConnector(conninfo=conninfo()))
        with app.open():
            app.schema_manager.apply_schema()

    def enqueue_all(self, jobs: list[tuple[int, int]], is_laned: bool) -> None:
        if is_laned:
            # batch_defer() gives all jobs of a call one lock, and we want the lanes to alternate.
            with psycopg.connect(conninfo()) as connection:
                connection.cursor().executemany(
                    INSERT, [(str(lane), _arguments(number, lane)) for number, lane in jobs]
                )
            return
        app, nothing = application(procrastinate.SyncPsycopgConnector(conninfo=conninfo()))
        with app.open():
            for first in range(0, len(jobs), CHUNK):
                chunk = jobs[first : first + CHUNK]
                nothing.batch_defer(*[{"number": number, "lane": lane} for number, lane in chunk])

    def trickle(self, jobs: int, per_second: float, lanes: int) -> dict[str, Any]:
        app, self._nothing = application(procrastinate.SyncPsycopgConnector(conninfo=conninfo()))
        with app.open():
            return super().trickle(jobs, per_second, lanes)

    def enqueue_one(self, number: int, lane: int, is_laned: bool) -> None:
        task = self._nothing.configure(lock=str(lane)) if is_laned else self._nothing
        task.defer(number=number, lane=lane)

    def work(self, concurrency: int) -> None:
        """Work until SIGTERM."""
        app, _ = application(procrastinate.PsycopgConnector(conninfo=conninfo()))

        async def run() -> None:
            async with app.open_async():
                await app.run_worker_async(concurrency=concurrency)

        asyncio.run(run())


def _arguments(number: int, lane: int) -> str:
    return json.dumps({"number": number, "lane": lane})


if __name__ == "__main__":
    Procrastinate().main()
