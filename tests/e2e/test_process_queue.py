"""`process_queue` in a process of its own, told to stop while the body waits for its query.

A signal handler that used the connection of the interrupted query would wait for itself for ever.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import connections

from tests import servers
from tests.supervision import processes
from tests.testapp.models import FifoJob

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 15.0
LOCK = 727

SETTINGS = """
from tests.settings import *
from tests.settings import DATABASES as every
DATABASES = {{"default": {{**every["postgresql"], "NAME": {name!r}}}}}
"""

PROGRAM = """
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from parviraptor_celery import broker
from tests.testapp.models import FifoJob

def process(self):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock({lock}), pg_advisory_unlock({lock})")

def on_job_terminated(self):
    {on_job_terminated}

FifoJob.process, FifoJob.on_job_terminated = process, on_job_terminated
with broker.silence():
    call_command("process_queue", "testapp", "FifoJob")
"""

Start = Callable[[str], processes.Managed]


@pytest.fixture
def database() -> Iterator[str]:
    """The alias of the database that the process and this test share."""
    servers.require("postgresql")
    yield "postgresql"
    connections["postgresql"].close()


@pytest.fixture
def start(database: str, supervisor: processes.Supervisor, tmp_path: Path) -> Iterator[Start]:
    """Start `process_queue` on jobs whose query waits until `LOCK` is free."""
    name = connections[database].settings_dict["NAME"]
    (tmp_path / "process_queue_settings.py").write_text(SETTINGS.format(name=name))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "DJANGO_SETTINGS_MODULE": "process_queue_settings",
        "PYTHONUNBUFFERED": "1",
    }
    started: list[processes.Managed] = []

    def start(on_job_terminated: str) -> processes.Managed:
        source = PROGRAM.format(lock=LOCK, on_job_terminated=on_job_terminated)
        argv, log = [sys.executable, "-c", source], tmp_path / "process_queue.log"
        started.append(supervisor.start("process_queue", argv, env=environment, log=log))
        return started[-1]

    yield start
    for process in started:
        process.kill_session()


@pytest.fixture
def lock(database: str) -> Iterator[psycopg.Connection]:
    """Hold `LOCK`; closing this connection lets the body's query end."""
    parameters = connections[database].get_connection_params()
    wanted = {key: parameters.get(key) for key in ("host", "port", "user", "password", "dbname")}
    with psycopg.connect(**wanted, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        yield connection


EVERYWHERE = pytest.mark.django_db(transaction=True, databases="__all__")


@EVERYWHERE
def test_a_job_that_is_handed_back_while_its_query_runs_waits_again_and_the_process_ends(
    database: str, lock: psycopg.Connection, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = enqueue(database, monkeypatch)
    process = start("self.update_job_for_being_resumed()")
    wait_for_the_query(process, lock)

    process.send_signal(signal.SIGTERM)
    wait_for(process, lambda: status(job, database) == "NEW", "the job to be handed back")
    lock.close()

    assert process.wait(SECONDS) == 0, process.log_text()
    assert status(job, database) == "NEW", "the body ended later, and recorded nothing"
    assert "stopped after 1 job\n" in process.log_text()


@EVERYWHERE
def test_an_error_in_on_job_terminated_does_not_reach_the_job(
    database: str, lock: psycopg.Connection, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = enqueue(database, monkeypatch)
    process = start("raise ValueError('not now')")
    wait_for_the_query(process, lock)

    process.send_signal(signal.SIGTERM)
    wait_for(process, lambda: "not now" in process.log_text(), "the error to be logged")
    lock.close()

    assert process.wait(SECONDS) == 0, process.log_text()
    assert status(job, database) == "PROCESSED"


def enqueue(database: str, monkeypatch: pytest.MonkeyPatch) -> FifoJob:
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    return FifoJob.enqueue(using=database)


def status(job: FifoJob, database: str) -> str:
    found: str = FifoJob.rows(database).get(pk=job.pk).status
    return found


def wait_for_the_query(process: processes.Managed, lock: psycopg.Connection) -> None:
    waiting = (
        "SELECT 1 FROM pg_locks JOIN pg_database ON database = pg_database.oid"
        " WHERE datname = current_database()"
        " AND locktype = 'advisory' AND objid = %s AND NOT granted"
    )
    wait_for(process, lambda: bool(lock.execute(waiting, [LOCK]).fetchone()), "the query to wait")


def wait_for(process: processes.Managed, predicate: Callable[[], bool], what: str) -> None:
    def held_or_gone() -> bool:
        return predicate() or process.poll() is not None

    try:
        processes.wait_until(held_or_gone, SECONDS, what)
    except TimeoutError as error:
        raise process.failure(str(error)) from None
    if process.poll() is not None:
        raise process.failure(f"ended before {what}")
