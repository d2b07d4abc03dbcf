"""A worker alone, without beat and without a kick: it finds what waits by itself."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kombu import Connection

from tests.supervision import processes

ROOT = Path(__file__).resolve().parent.parent.parent

NOBODY_KICKS = """
from example_project.departures.models import AircraftLeg, Departure
departure = Departure.objects.create(
    departed_at="2013-01-01T05:17Z", carrier="UA", flight=1545, tailnum="N14228", origin="EWR",
    dest="IAH", dep_delay_min=2, air_time_min=227, distance_mi=1400,
)
AircraftLeg.objects.bulk_create([AircraftLeg(departure=departure, tailnum=departure.tailnum)])
"""


@pytest.fixture
def environment(tmp_path: Path, broker_url: str, queue_name: str) -> Iterator[dict[str, str]]:
    yield {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "DATABASE_URL": "",
        "EXAMPLE_DIR": str(tmp_path),
        "CELERY_BROKER_URL": broker_url,
        "EXAMPLE_QUEUE": queue_name,
        "EXAMPLE_KEY_PREFIX": f"{queue_name}:" if broker_url.startswith("redis") else "",
        "EXAMPLE_TICK_SECONDS": "1",
    }
    if broker_url.startswith("amqp"):
        with Connection(broker_url) as connection, connection.channel() as channel:
            channel.queue_delete(queue_name)


def test_a_job_that_nobody_kicked_is_run_by_a_worker_alone(
    environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    manage = [sys.executable, "-m", "example_project.manage"]
    with processes.Supervisor() as supervisor:
        for name, argv in (("migrate", ["migrate"]), ("insert", ["shell", "-c", NOBODY_KICKS])):
            done = supervisor.start(name, [*manage, *argv], env=environment, cwd=ROOT, log=log)
            assert done.wait(60) == 0, log.read_text()
        assert statuses(tmp_path) == ["NEW"]

        celery = [sys.executable, "-m", "celery", "-A", "example_project", "worker"]
        quiet = ["--without-mingle", "--without-gossip", "--concurrency=1", "--loglevel=INFO"]
        supervisor.start("worker", [*celery, *quiet], env=environment, cwd=ROOT, log=log, grace=5)
        processes.wait_until(
            lambda: statuses(tmp_path) == ["PROCESSED"], 60, f"the worker's own sweep, see {log}"
        )
    ticks = values(tmp_path, "SELECT name FROM parviraptor_celery_tick")
    assert {"dispatch", "dispatch:worker"} <= set(ticks)
    assert "dispatch:beat" not in ticks


def statuses(directory: Path) -> list[str]:
    return values(directory, "SELECT status FROM departures_aircraftleg ORDER BY id")


def values(directory: Path, query: str) -> list[str]:
    (path,) = directory.glob("*.sqlite3")
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        return [value for (value,) in connection.execute(query)]
