"""Real workers on PostgreSQL and Redis, whose jobs run until the test lets them end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg
from celery import Celery
from django.db import connections

from tests.supervision import processes
from tests.testapp.models import Note

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30.0
LOCK = 728

SETTINGS = """
from tests.settings import *
from tests.settings import DATABASES as every
DATABASES = {{"default": {{**every["postgresql"], "NAME": {name!r}}}}}
PARVIRAPTOR_CONFIG = {{"LEASE_SECONDS": 3, "DISPATCH_INTERVAL_SECONDS": 1}}
CELERY_BROKER_URL = {broker!r}
CELERY_BROKER_TRANSPORT_OPTIONS = {{"global_keyprefix": "{queue}:"}}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = {queue!r}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = float(os.environ.get("CELERY_SOFT", 0))
"""

APP = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "lives_settings"
from celery import Celery
from celery.signals import worker_init

app = Celery("lives")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

def note(text):
    from tests.testapp.models import Note
    Note.objects.create(text=text)

def process(self):
    from django.db import connection
    note(f"began {{self.pk}}")
    {body}
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock({lock}), pg_advisory_unlock({lock})")
    note(f"ended {{self.pk}}")

def on_job_terminated(self):
    note(f"told {{self.pk}}")
    {on_job_terminated}

@app.on_after_finalize.connect
def script_the_jobs(**_):
    import django
    django.setup()
    from tests.testapp.models import AtomicJob, FifoJob, FreeJob
    for queue in (AtomicJob, FifoJob, FreeJob):
        queue.process, queue.on_job_terminated = process, on_job_terminated
"""


class Lives:
    """Starts workers one after another, on the same database and Celery queue."""

    def __init__(
        self, supervisor: processes.Supervisor, directory: Path, broker: str, queue: str
    ) -> None:
        self.supervisor, self.directory = supervisor, directory
        self.broker, self.queue = broker, queue
        self.started: list[processes.Managed] = []
        self.lock = self._connect()
        name = connections["postgresql"].settings_dict["NAME"]
        source = SETTINGS.format(name=name, broker=broker, queue=queue)
        (directory / "lives_settings.py").write_text(source)

    def start(
        self,
        *options: str,
        body: str = "pass",
        on_job_terminated: str = "self.update_job_for_being_resumed()",
        **environment: str,
    ) -> processes.Managed:
        """Start a worker with one child; it has a log of its own."""
        source = APP.format(lock=LOCK, body=body, on_job_terminated=on_job_terminated)
        (self.directory / "lives_app.py").write_text(source)
        argv = [sys.executable, "-m", "celery", "-A", "lives_app", "worker", "--loglevel=INFO"]
        argv += ["--without-mingle", "--without-gossip", "--concurrency=1", *options]
        number = len(self.started)
        worker = self.supervisor.start(
            f"worker{number}",
            [*argv, "-n", f"w{number}-{os.getpid()}@%h"],
            env={
                **os.environ,
                **environment,
                "PYTHONPATH": f"{self.directory}{os.pathsep}{ROOT}",
                "PYTHONUNBUFFERED": "1",
            },
            cwd=self.directory,
            log=self.directory / f"worker{number}.log",
        )
        self.started.append(worker)
        return worker

    def start_flower(self) -> str:
        """Start Flower beside the workers; return its address."""
        port = processes.free_port()
        argv = [sys.executable, "-m", "celery", "-A", "lives_app", "flower"]
        options = ["--address=127.0.0.1", f"--port={port}"]
        environment = {
            **os.environ,
            "PYTHONPATH": f"{self.directory}{os.pathsep}{ROOT}",
            "FLOWER_UNAUTHENTICATED_API": "1",
        }
        log = self.directory / "flower.log"
        flower = self.supervisor.start(
            "flower",
            [*argv, *options],
            env=environment,
            cwd=self.directory,
            log=log,
            ready=lambda: processes.port_answers("127.0.0.1", port),
        )
        self.started.append(flower)
        return f"http://127.0.0.1:{port}"

    def hold(self) -> None:
        """Let bodies wait."""
        self.lock.execute("SELECT pg_advisory_lock(%s)", [LOCK])

    def let_go(self) -> None:
        """Let waiting bodies end."""
        self.lock.execute("SELECT pg_advisory_unlock(%s)", [LOCK])

    def waiting_bodies(self) -> int:
        """Return how many bodies wait, those of the dead included."""
        return len(self._waiting())

    def forget_the_dead(self) -> None:
        """End the queries of killed bodies; PostgreSQL does not notice that nobody listens."""
        for (pid,) in self._waiting():
            self.lock.execute("SELECT pg_terminate_backend(%s)", [pid])

    def shut_down_remotely(self) -> None:
        """Let the workers end by Celery's remote control."""
        with Celery("remote", broker=self.broker, set_as_current=False) as app:
            app.conf.broker_transport_options = {"global_keyprefix": f"{self.queue}:"}
            app.control.shutdown()

    def _waiting(self) -> list[tuple[int]]:
        waiting = """
            SELECT pid FROM pg_locks JOIN pg_database ON database = pg_database.oid
            WHERE datname = current_database()
            AND locktype = 'advisory' AND objid = %s AND NOT granted"""
        found: list[tuple[int]] = self.lock.execute(waiting, [LOCK]).fetchall()
        return found

    def stop_all(self) -> None:
        for worker in self.started:
            worker.kill_session()
        self.lock.close()

    def _connect(self) -> psycopg.Connection:
        parameters = connections["postgresql"].get_connection_params()
        names = ("host", "port", "user", "password", "dbname")
        wanted = {key: parameters.get(key) for key in names}
        return psycopg.connect(**wanted, autocommit=True)


def enqueue(queue: Any, count: int = 1) -> list[Any]:
    """Insert jobs; nobody is kicked, the worker's own sweep finds them."""
    return list(queue.rows("postgresql").bulk_create([queue() for _ in range(count)]))


def notes(word: str) -> list[str]:
    """What bodies noted that begins with ``word``, oldest first."""
    rows = Note.objects.using("postgresql").filter(text__startswith=f"{word} ").order_by("id")
    return list(rows.values_list("text", flat=True))


def row(job: Any) -> Any:
    return type(job).rows("postgresql").get(pk=job.pk)


def status(job: Any) -> str:
    found: str = row(job).status
    return found


def cost(job: Any) -> tuple[str, int, int, int]:
    """Status, attempts, errors and worker deaths of a job."""
    now = row(job)
    return now.status, now.attempt, now.error_count, now.worker_deaths


def children(worker: processes.Managed) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children()


def wait_for(worker: processes.Managed, predicate: Callable[[], bool], what: str) -> None:
    """Wait until it is so; a worker that is gone meanwhile, or too slow, shows its log."""

    def held_or_gone() -> bool:
        return predicate() or worker.poll() is not None

    try:
        processes.wait_until(held_or_gone, SECONDS, what)
    except TimeoutError as error:
        raise worker.failure(str(error)) from None
    if not predicate():
        raise worker.failure(f"ended before {what}")
