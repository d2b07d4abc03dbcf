"""What end-to-end tests do with jobs from outside: enqueue, hold and read them."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import psycopg
from django.db import connections
from django.utils import timezone

from tests.e2e.project import LOCK
from tests.testapp.models import Note


class Hold:
    """Lets bodies wait in a query, on PostgreSQL; a context manager."""

    def __init__(self, alias: str = "postgresql") -> None:
        parameters = connections[alias].get_connection_params()
        names = ("host", "port", "user", "password", "dbname")
        wanted = {key: parameters.get(key) for key in names}
        self._connection = psycopg.connect(**wanted, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def take(self) -> None:
        """Let bodies wait."""
        self._connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])

    def let_go(self) -> None:
        """Let waiting bodies end."""
        self._connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])

    def waiting_bodies(self) -> int:
        """Return how many bodies wait, those of the dead included."""
        return len(self._waiting())

    def forget_the_dead(self) -> None:
        """End the queries of killed bodies; PostgreSQL does not notice that nobody listens."""
        for (pid,) in self._waiting():
            self._connection.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    def _waiting(self) -> list[tuple[int]]:
        waiting = """
            SELECT pid FROM pg_locks JOIN pg_database ON database = pg_database.oid
            WHERE datname = current_database()
            AND locktype = 'advisory' AND objid = %s AND NOT granted"""
        found: list[tuple[int]] = self._connection.execute(waiting, [LOCK]).fetchall()
        return found


def enqueue(queue: Any, count: int = 1, **fields: Any) -> list[Any]:
    """Enqueue jobs; their kicks go to the broker of the test's setup."""
    jobs: list[Any] = queue.enqueue_many(
        [queue(**fields) for _ in range(count)], using="postgresql"
    )
    return jobs


def notes(*words: str, using: str = "postgresql") -> list[str]:
    """What was noted that begins with one of the words, oldest first."""
    texts = Note.objects.using(using).order_by("id").values_list("text", flat=True)
    return [text for text in texts if text.partition(" ")[0] in words]


def row(job: Any) -> Any:
    return type(job).rows(job._state.db).get(pk=job.pk)


def status(job: Any) -> str:
    found: str = row(job).status
    return found


def cost(job: Any) -> tuple[str, int, int, int]:
    """Status, attempts, errors and worker deaths of a job."""
    now = row(job)
    return now.status, now.attempt, now.error_count, now.worker_deaths


def let_leases_run_out(queue: Any) -> None:
    """As if the time had passed, for the jobs of workers that are dead."""
    a_moment_ago = timezone.now() - timedelta(seconds=1)
    running = queue.rows("postgresql").filter(lease_until__isnull=False)
    running.update(lease_until=a_moment_ago)
