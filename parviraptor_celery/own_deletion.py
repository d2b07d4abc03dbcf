"""Whether the body of an ``atomic`` queue has deleted its own job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import Error, connections

logger = logging.getLogger("parviraptor_celery")


def has_deleted_itself(job: Any, *, is_enclosed: bool) -> bool:
    """Return whether the open transaction has deleted ``job``, which was ours until then.

    A row that is gone may have been run, and deleted, by another worker: then what this one did
    has to be undone. So another connection is asked, for which the job must still be leased to us.
    What our transaction has deleted it keeps locked, so that the answer holds until it commits.

    ``is_enclosed``: a test's transaction is around it all, and nobody else sees the job.
    """
    if job.rows(job.alias).filter(pk=job.claimed_pk).exists():
        return False
    if is_enclosed or _is_in_memory(connections[job.alias]):
        return True
    try:
        return _answer_elsewhere(job.held().exists)
    except Error as error:
        logger.warning(
            "%s %s is gone, and whether by its own body can't be found out (%s)",
            *(job._meta.label, job.claimed_pk, type(error).__name__),
        )
        return False


def _is_in_memory(connection: Any) -> bool:
    return connection.vendor == "sqlite" and connection.is_in_memory_db()


def _answer_elsewhere(question: Callable[[], bool]) -> bool:
    """Ask in another thread, which has a connection of its own."""

    def ask() -> bool:
        try:
            return question()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result()
