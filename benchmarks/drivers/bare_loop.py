"""The yardstick: psycopg, one connection, and for each row BEGIN, UPDATE, COMMIT. No queue."""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg

from benchmarks.drivers import environment
from benchmarks.drivers.protocol import Driver


class BareLoop(Driver):
    packages = ("psycopg",)

    def loop(self, table: str) -> dict[str, Any]:
        """Mark every row of `table` as processed, each in a transaction of its own."""
        update = f"UPDATE {table} SET status = 'PROCESSED', modification_date = now() WHERE id = %s"
        with psycopg.connect(os.environ[environment.DATABASE_VARIABLE]) as connection:
            ids = [row[0] for row in connection.execute(f"SELECT id FROM {table} ORDER BY id")]
            connection.commit()
            started, used = time.perf_counter(), time.process_time()
            for pk in ids:
                connection.execute(update, (pk,))
                connection.commit()
            seconds, cpu = time.perf_counter() - started, time.process_time() - used
        return {"jobs": len(ids), "rate": len(ids) / seconds, "cpu_us": 1e6 * cpu / len(ids)}


if __name__ == "__main__":
    BareLoop().main()
