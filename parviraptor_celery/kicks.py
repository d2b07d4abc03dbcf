"""When a kick is sent, and when somebody is on the way already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from . import broker

if TYPE_CHECKING:
    from .models import AbstractJob

PROCESS = "parviraptor_celery.process_jobs"
DISPATCH = "parviraptor_celery.dispatch_jobs"

MOST_MESSAGES = 100
LANES_PER_MESSAGE = 50
MOST_LANES = MOST_MESSAGES * LANES_PER_MESSAGE
BACKLOG = 10
"""Waiting rows without order that are kicked one by one; more have enough workers."""


def on_commit(job: Any, using: str) -> None:
    """Wake a worker for ``job`` once its transaction has committed."""
    lanes = None if job.lane is None else [job.lane]
    KickAfterCommit.register(job, using, lambda: send(type(job), using, lanes))


def many_on_commit(queue: type[AbstractJob], using: str, jobs: list[Any]) -> None:
    """Wake workers for all ``jobs`` once the transaction has committed."""
    lanes = sorted({job.lane for job in jobs if job.lane is not None})
    messages = 1 if lanes else min(len(jobs), BACKLOG)

    def kick_lanes() -> None:
        for _ in range(messages):
            send(queue, using, lanes)

    transaction.on_commit(kick_lanes, using=using, robust=True)


def send(queue: type[AbstractJob], using: str, lanes: list[str] | None) -> None:
    """Publish kicks for ``lanes`` (None or empty: the queue is independent).

    A broker that is away costs one try: the sweep finds the rest.
    """
    label = queue._meta.label
    if not lanes:
        broker.kick(PROCESS, queue=label, using=using)
        return
    if len(lanes) > MOST_LANES:
        broker.kick(DISPATCH, queue=label, using=using)
        return
    for part in spread(lanes):
        if not broker.kick(PROCESS, queue=label, using=using, lanes=part):
            return


def spread(lanes: list[str]) -> Iterator[list[str]]:
    """Yield ``lanes`` in as many parts as there may be messages, for workers to share."""
    messages = min(len(lanes), MOST_MESSAGES)
    for first in range(messages):
        yield lanes[first::messages]


class KickAfterCommit:
    """One hook per row, so that each goes with its own savepoint; alike ones kick once."""

    @classmethod
    def register(cls, row: Any, using: str, send: Callable[[], None]) -> None:
        """Call ``send`` after the commit, unless somebody will come to ``row`` anyway."""
        transaction.on_commit(cls(row, using, send), using=using, robust=True)

    def __init__(self, row: Any, using: str, send: Callable[[], None]) -> None:
        self.table, self.lane, self.pk = type(row).rows(using), row.lane, row.pk
        self.send = send
        self.sent = self._shared_with_transaction(using)
        self.__qualname__ = f"kick for {row._meta.label}"  # Django logs it when a hook raises

    def __call__(self) -> None:
        about = (self.table.model, self.lane)
        if self.lane is not None and about in self.sent:
            return
        self.sent.add(about)
        if not self._is_on_its_way():
            self.send()

    def _shared_with_transaction(self, using: str) -> set[Any]:
        for hook in reversed(connections[using].run_on_commit):
            if isinstance(hook[1], KickAfterCommit):
                return hook[1].sent
        return set()

    def _is_on_its_way(self) -> bool:
        if self.lane is not None:
            return bool(self.table.is_attended(self.lane, self.pk))
        # The first few in the order of their turn always have a kick of their own, and whoever
        # works these off goes on until nothing is ready.
        ahead = self.table.ready().values_list("id", flat=True)[:BACKLOG]
        return self.pk not in (ids := list(ahead)) and len(ids) == BACKLOG
