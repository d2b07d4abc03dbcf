"""Wakes those that waited behind a job which is gone: superseded from another lane, or deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connections, transaction

from . import attendance, broker, kicks

Freed = dict[Any, dict[str, int]]
"""Of each queue the lanes in which a job is gone, with the lowest id of those."""


def after_commit(queue: Any, using: str, lanes: Mapping[str, int]) -> None:
    """Kick ``lanes`` once the transaction has committed, if a job behind the given id may begin.

    However many calls a transaction makes, they cost two queries for a lane and a message for
    all. Beyond ``BACKLOG`` lanes of a queue none is looked at here: one message has all of them
    looked at and kicked.
    """
    hook = WakeAfterCommit(using)
    hook.note(queue, lanes)
    transaction.on_commit(hook, using=using, robust=True)


class WakeAfterCommit:
    """One hook per call, so that none is missed when the savepoint of another is rolled back.

    All hooks of a transaction share what they know, and the first that runs wakes for all. A lane
    whose savepoint was rolled back is asked about for nothing.
    """

    def __init__(self, using: str) -> None:
        self.using = using
        self.freed = self._shared_with_transaction()
        self.__qualname__ = "wake of those behind"  # Django logs it when a hook raises

    def note(self, queue: Any, lanes: Mapping[str, int]) -> None:
        known = self.freed.setdefault(queue, {})
        for lane, pk in lanes.items():
            known[lane] = min(pk, known.get(lane, pk))

    def __call__(self) -> None:
        while self.freed:
            queue, lanes = self.freed.popitem()
            _wake(queue, self.using, lanes)

    def _shared_with_transaction(self) -> Freed:
        for hook in reversed(connections[self.using].run_on_commit):
            if isinstance(hook[1], WakeAfterCommit):
                return hook[1].freed
        return {}


def _wake(queue: Any, using: str, lanes: dict[str, int]) -> None:
    if len(lanes) > attendance.BACKLOG:
        about = queue._meta.concrete_model._meta.label
        broker.kick(kicks.DISPATCH, queue=about, using=using)
        return
    rows = queue.rows(using)
    if ready := [lane for lane, pk in sorted(lanes.items()) if rows.may_begin(lane, behind=pk)]:
        kicks.send(queue, using, ready)
