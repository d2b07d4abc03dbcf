"""Works the outbox off inside a test: each event once, in the order in which they were written."""

from __future__ import annotations

import contextlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from django.db import connections
from django.test.testcases import DatabaseOperationForbidden  # type: ignore[attr-defined]

from parviraptor_celery.clock import now
from parviraptor_celery.database import alone
from parviraptor_celery.settling import settle_alone

from . import execution, registry
from .dispatch import EventLaneFeed
from .exceptions import DrainEndless, DrainFailed
from .execution import Run
from .models import Event
from .outcomes import Dead, Published, Unknown
from .querysets import EventQuerySet
from .states import EventStatus

OPEN = (EventStatus.WAITING, EventStatus.PUBLISHING)

T = TypeVar("T")


def rows_of(*statuses: EventStatus) -> list[Event]:
    """Return the events in ``statuses`` of every database that the test may use, oldest first."""
    return in_order(*each_database(lambda rows: list(rows.filter(status__in=statuses))))


def each_database(question: Callable[[EventQuerySet], T]) -> list[T]:
    """Return what ``question`` answers about the rows, in order of id, of each usable database."""
    answers = []
    for alias in registry.known_aliases():
        if connections[alias].settings_dict["TEST"].get("MIRROR"):
            continue  # the same rows as in the database that it mirrors
        with contextlib.suppress(DatabaseOperationForbidden):  # nothing can be written there either
            answers.append(question(Event.rows(alias).order_by("id")))
    return answers


def in_order(*events: list[Event]) -> list[Event]:
    """Merge lists, each of one database and in order of id, by the time of writing."""
    return list(heapq.merge(*events, key=lambda event: event.created_at))


def survive_errors(body: Callable[[], T]) -> T:
    """Run ``body``; where it breaks the transaction of a test, go back to before it.

    In production a function runs outside of any transaction, and a statement that fails ends
    only itself. Inside a TestCase it would end what the test and the settlement need.
    """
    opened = [item for item in connections.all(initialized_only=True) if item.in_atomic_block]
    marks: list[tuple[Any, Any]] = [(item, item.savepoint()) for item in opened]
    result = body()
    for connection, mark in marks:
        if connection.needs_rollback or not connection.is_usable():
            connection.needs_rollback = False
            connection.savepoint_rollback(mark)
        else:
            connection.savepoint_commit(mark)
    return result


class Drain:
    """One walk over everything that waits, and over what is written during the walk."""

    def __init__(self, *, raise_errors: bool, ignore_due_times: bool, limit: int) -> None:
        self.raise_errors, self.ignore_due_times = raise_errors, ignore_due_times
        self.limit = limit
        self._left: defaultdict[str, set[int]] = defaultdict(set)
        """What was tried and still waits: by database, ids."""

        self._blocked: defaultdict[str, set[str]] = defaultdict(set)
        """Lanes whose head still waits: what is behind it must not overtake it."""

    def runs(self) -> Iterator[Run]:
        """Run and settle one event after another.

        Raises:
            DrainFailed: an event was not published, and ``raise_errors`` is set.
            DrainEndless: too many events were written during the walk.
        """
        most = sum(each_database(lambda rows: rows.filter(status__in=OPEN).count())) + self.limit
        while event := self._next():
            if (most := most - 1) < 0:
                raise DrainEndless(
                    f"More than {self.limit} events were written while the outbox was drained; "
                    f"the next would be {event}. Does a function write events that write events? "
                    "If it is to be so many, pass limit=…."
                )
            if run := self._run(event):
                yield run

    def _next(self) -> Event | None:
        heads = each_database(lambda rows: self._runnable(rows).first())
        return min(filter(None, heads), key=lambda event: event.created_at, default=None)

    def _runnable(self, rows: EventQuerySet) -> Any:
        waiting = rows.waiting() if self.ignore_due_times else rows.waiting().due()
        held_hooks = rows.filter(status=EventStatus.PUBLISHING, lane__isnull=True)
        untried = (waiting | held_hooks).exclude(pk__in=self._left[rows.db])
        return untried.exclude(lane__in=self._blocked[rows.db])

    def _run(self, event: Event) -> Run | None:
        by_relay = event.status == EventStatus.WAITING
        claimed = self._claim(event)
        if claimed is None:
            self._leave(event)
            if self.raise_errors and not self._is_behind_dead_letter(event):
                raise DrainFailed(
                    f"{event} could not be claimed: another thread's open transaction writes to "
                    "its lane, or somebody else runs it."
                )
            return None
        run = survive_errors(lambda: execution.run(claimed, by_relay=by_relay))
        settle_alone(run, claimed.alias)
        run.announce()
        if not isinstance(run.outcome, Published):
            self._leave(claimed)
            self._complain(run)
        return run

    def _claim(self, event: Event) -> Any:
        """Claim the event as its hook or the relay would; None if it can't be had."""
        if event.status == EventStatus.PUBLISHING:
            return event if alone(event.alias, event.renew) else None
        if event.lane is None:
            return event if alone(event.alias, event.claim) else None
        rows = Event.rows(event.alias)
        if self.ignore_due_times and event.run_after is not None:
            # By its id: an update of the lane would wait for the uncommitted rows of others.
            rows.filter(pk=event.pk, status=event.status).update(run_after=now())
        return EventLaneFeed(rows, event.lane).first()

    def _leave(self, event: Event) -> None:
        self._left[event.alias].add(event.pk)
        if event.lane is not None:
            self._blocked[event.alias].add(event.lane)

    def _is_behind_dead_letter(self, event: Event) -> bool:
        dead = Event.rows(event.alias).dead()
        return dead.filter(lane=event.lane, id__lt=event.pk).exists()

    def _complain(self, run: Run) -> None:
        if not self.raise_errors:
            return
        event, error = run.row, getattr(run.outcome, "error", None)
        match run.outcome:
            case Unknown() | Dead():
                why = f"{run.outcome.summary}: {error}" if error else run.outcome.summary
            case _:
                why = f"raised {type(error).__name__}: {error}"
        raise DrainFailed(
            f"{event.name} (event {event.pk}): {why}\n"
            "Pass raise_errors=False to see what becomes of it in production."
        ) from error
