"""When a kick is sent, and when somebody is on the way already."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections, transaction
from django.utils import timezone

from . import broker
from .attendance import BACKLOG
from .clock import local_now
from .conf import settings
from .states import CLAIMABLE

if TYPE_CHECKING:
    from .models import AbstractJob

T = TypeVar("T")
Send = Callable[[list[str], float | None], bool]

PROCESS = "parviraptor_celery.process_jobs"
DISPATCH = "parviraptor_celery.dispatch_jobs"

MOST_MESSAGES = 100
LANES_PER_MESSAGE = 50
MOST_LANES = MOST_MESSAGES * LANES_PER_MESSAGE


def on_commit(job: Any, using: str, *, due: Any = None, is_unattended: bool = False) -> None:
    """Wake a worker for ``job`` once its transaction has committed.

    With ``due``, a moment in the future, the kick is held back until then; a moment further
    away than ``RETRY_COUNTDOWN_CAP_SECONDS`` is left to the sweep. If it is known that the job
    ``is_unattended``, nobody is asked about that any more.
    """

    def kick(lanes: list[str], countdown: float | None) -> bool:
        return send(type(job), using, lanes, countdown=countdown)

    KickAfterCommit.register(job, using, kick, due, is_unattended)


def many_on_commit(queue: type[AbstractJob], using: str, jobs: list[Any]) -> None:
    """Wake workers for ``jobs`` once the transaction has committed; those that are due at once."""
    wanted = [(job.run_after, job.lane) for job in jobs if job.status in CLAIMABLE]

    def kick() -> None:
        for countdown, lanes in in_rounds(wanted):
            if None not in lanes:
                send(queue, using, sorted(set(lanes)), countdown=countdown)
                continue
            for _ in range(min(len(lanes), BACKLOG)):
                send(queue, using, None, countdown=countdown)

    kick.__qualname__ = f"kicks for {queue._meta.label}"  # Django logs it when a hook raises
    transaction.on_commit(kick, using=using, robust=True)


def send(
    queue: type[AbstractJob],
    using: str,
    lanes: list[str] | None,
    *,
    countdown: float | None = None,
) -> bool:
    """Publish kicks for ``lanes`` (None or empty: the queue is independent), or in ``countdown``.

    A broker that is away costs one try (False): the sweep finds the rest.
    """
    about: dict[str, Any] = {"queue": queue._meta.concrete_model._meta.label, "using": using}  # type: ignore[union-attr]
    if countdown is not None:
        about["countdown"] = countdown
    if not lanes:
        return broker.kick(PROCESS, **about)
    if len(lanes) > MOST_LANES:
        return broker.kick(DISPATCH, **about)
    return all(broker.kick(PROCESS, **about, lanes=part) for part in spread(lanes))


def in_rounds(wanted: Iterable[tuple[Any, T]]) -> Iterator[tuple[float | None, list[T]]]:
    """Group pairs of due time and thing by when a kick helps: at once (None), or in n seconds.

    Of the times to come, those within ``RETRY_COUNTDOWN_CAP_SECONDS``, and the first few.
    """
    now, at_once, later = local_now(), list[T](), dict[int, list[tuple[float, T]]]()
    for due, thing in wanted:
        delay = _seconds_between(now, due)
        if delay <= 0:
            at_once.append(thing)
        elif delay <= settings.RETRY_COUNTDOWN_CAP_SECONDS:
            later.setdefault(int(delay), []).append((delay, thing))
    if at_once:
        yield None, at_once
    for second in sorted(later)[:BACKLOG]:
        yield max(delay for delay, _ in later[second]), [thing for _, thing in later[second]]


def send_for_pool(queue: type[AbstractJob], using: str) -> int:
    """Publish a kick for each of the first jobs without order that may run; return how many."""
    rows = queue.rows(using)
    ready = len(rows.next_ids(BACKLOG)) or int(rows.deferred().exists())
    for _ in range(ready):
        send(queue, using, None)
    return ready


def spread(lanes: list[str]) -> Iterator[list[str]]:
    """Yield ``lanes`` in as many parts as there may be messages, for workers to share."""
    messages = min(len(lanes), MOST_MESSAGES)
    for first in range(messages):
        yield lanes[first::messages]


class KickAfterCommit:
    """One hook per row, so that each goes with its own savepoint.

    The first that runs after the commit kicks for all that are left, so that a thousand rows,
    written one by one, cost few questions and messages. They know each other by weak
    references: Django drops the hooks of a savepoint that is rolled back. Should somebody keep
    one alive, its lane is kicked for nothing.
    """

    @classmethod
    def register(
        cls, row: Any, using: str, send: Send, due: Any = None, is_unattended: bool = False
    ) -> None:
        """Call ``send`` after the commit, unless somebody will come to ``row`` anyway.

        ``send`` is given the lanes of all alike rows of the transaction (none where there is no
        order), and in how many seconds it should be (None: at once); it returns whether it
        makes sense to go on.
        """
        hook = cls(row, using, send, due)
        hook.is_unattended = is_unattended
        transaction.on_commit(hook, using=using, robust=True)

    def __init__(self, row: Any, using: str, send: Send, due: Any) -> None:
        self.model, self.using, self.lane, self.pk = type(row), using, row.lane, row.pk
        self.send, self.due, self.is_unattended = send, due, False
        self.is_done = False
        self.others = self._shared_with_transaction()
        self.others.append(weakref.ref(self))
        self.__qualname__ = f"kick for {row._meta.label}"  # Django logs it when a hook raises

    def __call__(self) -> None:
        if self.is_done:
            return
        left = [hook for ref in self.others if (hook := ref()) is not None and not hook.is_done]
        alike: dict[Any, list[KickAfterCommit]] = {}
        for hook in left:
            hook.is_done = True
            alike.setdefault((hook.model, hook.lane is None), []).append(hook)
        for hooks in alike.values():
            for countdown, due in in_rounds((hook.due, hook) for hook in hooks):
                self._kick(due, countdown)

    def _kick(self, hooks: list[KickAfterCommit], countdown: float | None) -> None:
        """Kick for alike ``hooks``; what is due later has nobody on the way to it."""
        first = hooks[0]
        if first.lane is None:
            kicks = min(len(hooks), BACKLOG) if countdown else first._kicks_needed(hooks)
            for _ in range(kicks):
                if not first.send([], countdown):
                    return
            return
        # Each with its first row by id, which a decision about an old job may have come after.
        lanes = {hook.lane: hook for hook in sorted(hooks, key=lambda hook: -hook.pk)}
        if countdown is None and len(lanes) <= BACKLOG:
            lanes = {lane: hook for lane, hook in lanes.items() if not hook._is_attended()}
        if lanes:
            first.send(sorted(lanes), countdown)

    def _shared_with_transaction(self) -> list[weakref.ref[KickAfterCommit]]:
        for hook in reversed(connections[self.using].run_on_commit):
            if isinstance(hook[1], KickAfterCommit):
                return hook[1].others
        return []

    def _is_attended(self) -> bool:
        if self.is_unattended:
            return False
        return bool(self.model.rows(self.using).is_attended(self.lane, self.pk))

    def _kicks_needed(self, hooks: list[KickAfterCommit]) -> int:
        if self.is_unattended and len(hooks) == 1:
            return 1
        # The first few in the order of their turn always have a kick of their own, and whoever
        # works these off goes on until nothing is ready.
        ahead = self.model.rows(self.using).first_in_turn(BACKLOG)
        if len(ahead) < BACKLOG:
            return min(len(hooks), BACKLOG)
        needed = sum(hook.due is not None or hook.pk in ahead for hook in hooks)
        return min(needed, BACKLOG)


def _seconds_between(now: datetime, due: Any) -> float:
    if not isinstance(due, datetime):
        return 0.0  # none, or something that only the database understands
    if timezone.is_naive(due):
        due = timezone.make_aware(due)
    return (due - now).total_seconds()
