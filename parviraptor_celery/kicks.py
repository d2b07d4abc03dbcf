"""When a kick is sent, and when the work is on its way already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from . import broker

if TYPE_CHECKING:
    from .models import AbstractJob

PROCESS = "parviraptor_celery.process_jobs"
DISPATCH = "parviraptor_celery.dispatch_jobs"

MOST_MESSAGES = 100
LANES_PER_MESSAGE = 50
BACKLOG = 10
"""Waiting jobs of an independent queue that are kicked one by one; more have enough workers."""


def on_commit(job: AbstractJob, using: str) -> None:
    """Wake a worker for ``job`` once its transaction has committed."""
    hook = _KickAfterCommit(job, using)
    transaction.on_commit(hook, using=using, robust=True)


def many_on_commit(queue: type[AbstractJob], using: str, lanes: Iterable[str | None]) -> None:
    """Wake workers for all ``lanes`` once the transaction has committed."""
    wanted = sorted({lane for lane in lanes if lane is not None})

    def kick_lanes() -> None:
        send(queue, using, wanted)

    transaction.on_commit(kick_lanes, using=using, robust=True)


def send(queue: type[AbstractJob], using: str, lanes: list[str] | None) -> None:
    """Publish kicks for ``lanes`` (None or empty: the queue is independent)."""
    label = queue._meta.label
    if not lanes:
        broker.kick(PROCESS, queue=label, using=using)
    elif len(lanes) > MOST_MESSAGES * LANES_PER_MESSAGE:
        broker.kick(DISPATCH, force=True)
    else:
        messages = min(len(lanes), MOST_MESSAGES)
        for first in range(messages):
            if not broker.kick(PROCESS, queue=label, using=using, lanes=lanes[first::messages]):
                return  # the broker is away: the sweep finds the rest


class _KickAfterCommit:
    """One hook per job, so that each goes with its own savepoint; alike hooks kick once."""

    def __init__(self, job: AbstractJob, using: str) -> None:
        self.queue, self.using, self.lane, self.pk = type(job), using, job.lane, job.pk
        self.__qualname__ = "parviraptor_celery.kick"  # Django logs it when a hook raises
        self.sent = self._shared_with_transaction()

    def _shared_with_transaction(self) -> set[Any]:
        for _, function, _ in reversed(connections[self.using].run_on_commit):
            if isinstance(function, _KickAfterCommit):
                return function.sent
        return set()

    def __call__(self) -> None:
        about = (self.queue, self.lane)
        if self.lane is not None and about in self.sent:
            return
        self.sent.add(about)
        if not self._is_on_its_way():
            send(self.queue, self.using, None if self.lane is None else [self.lane])

    def _is_on_its_way(self) -> bool:
        """Return whether somebody will come to this job anyway.

        Whoever runs the lane looks again after every commit, and an earlier waiting job has a
        kick of its own. If that one was lost, the sweep brings both.
        """
        rows = self.queue.rows(self.using)
        if self.lane is None:
            earlier = rows.waiting().filter(id__lt=self.pk).order_by("-id")
            return len(earlier.values_list("id")[BACKLOG - 1 : BACKLOG]) > 0
        if rows.running_in(self.lane).exists():
            return True
        head = rows.waiting_in(self.lane).values_list("id", flat=True).first()
        return head is not None and head < self.pk
