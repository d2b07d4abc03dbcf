"""What the scenarios of both apps share: kicks that arrive when somebody takes them, and a history.

The broker is a list here. A kick is handled by an actor that waits for kicks, or at the end, when
everything comes to rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, ClassVar

import pytest
from celery.exceptions import Retry
from django.db import connections, transaction

from jaiminho_celery.tasks import relay_events
from parviraptor_celery.clock import from_now
from parviraptor_celery.statements import fenced_update
from parviraptor_celery.tasks import dispatch_jobs, process_jobs
from tests.faults.history import History
from tests.faults.ledger import Entry, What
from tests.faults.stage import current, gate

MOST_ROUNDS = 50
RECOVERY = "recovery"
LONG_AGO = "2000-01-01T00:00:00Z"

WRITES = ("INSERT", "UPDATE", "DELETE", "WITH", "COMMIT", "ROLLBACK")

TASKS: dict[str, Any] = {task.name: task for task in (process_jobs, dispatch_jobs, relay_events)}

Kick = tuple[str, dict[str, Any]]


class World:
    """A scenario without its story: derive from it, and say who does what."""

    names: Sequence[str] = ()
    preemptions = 1
    expected: ClassVar[frozenset[str]] = frozenset()
    """The kinds of ends that an exploration has to meet; else it has seen too little."""

    may_restart = False
    """Whether transactions of the library may meet so that the database ends one of them."""

    may_raise: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors that an actor's part may end with: answers to people who came too late."""

    def __init__(self, using: str, patch: pytest.MonkeyPatch) -> None:
        self.using = using
        self.kicks: list[Kick] = []
        self.later: list[Kick] = []
        self.entries: list[Entry] = []
        self.stale: set[str] = set()
        self.problems: list[str] = []
        self.restarts = 0
        self._moments = itertools.count()
        patch.setattr("parviraptor_celery.broker.kick", self._take_kick)
        patch.setattr("parviraptor_celery.database.logger", self)
        self.prepare(patch)

    # What a scenario says

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        """Put bodies and functions under control; called once."""

    def given(self) -> None:
        """Remove what the last play left, and write what there is at first."""

    def parts(self) -> Mapping[str, Callable[[], object]]:
        """Return what each actor does."""
        raise NotImplementedError

    def at_rest(self) -> list[str]:
        """Bring everything to rest; return what is wrong then."""
        raise NotImplementedError

    def kind(self) -> str:
        """Return which kind of end this was."""
        return ""

    # What the explorer asks for

    def arrange(self) -> Mapping[str, Callable[[], object]]:
        for forgotten in (self.kicks, self.later, self.entries, self.problems, self.stale):
            forgotten.clear()
        self.restarts = 0
        self.given()
        return self.parts()

    def look(self, label: str) -> list[str]:
        return self.problems

    def is_written_by(self, label: str) -> bool:
        """Return whether others may see something else after such a step than before."""
        return label in WRITES

    def conclude(self, errors: Mapping[str, BaseException]) -> tuple[list[str], str]:
        raised = {
            name: error for name, error in errors.items() if not isinstance(error, self.may_raise)
        }
        problems = [f"{name} was told {error!r}" for name, error in raised.items()]
        problems += self.at_rest() + self.history_problems() + self.problems
        if self.restarts and not self.may_restart:
            problems.append("a deadlock, or a transaction that started again for another reason")
        return problems, self.kind()

    # What the parts are made of

    def worker(self) -> None:
        """Handle one kick after the other, until there are none and nobody is left to send any."""
        while kick := self.next_kick():
            self.handle(kick)

    def next_kick(self) -> Kick | None:
        gate("takes a kick", lambda: bool(self.kicks))
        return self.kicks.pop(0) if self.kicks else None

    def handle(self, kick: Kick) -> None:
        name, about = kick
        try:
            TASKS[name](**about)
        except Retry:
            self.later.append(kick)

    def handle_all(self) -> None:
        """Handle every kick that was sent, and those that this sends."""
        for _ in range(MOST_ROUNDS):
            if not self.kicks:
                return
            self.handle(self.kicks.pop(0))
        self.problems.append("kicks without end")

    def committing(self, item: str, lane: str = "") -> Any:
        """Return a transaction in which ``item`` is written, and which is noted as such."""
        self.note("intended", item, lane)
        block = transaction.atomic(using=self.using)
        return _Noting(block, lambda: self.note("committed", item, lane), self.using)

    # The history

    def note(self, what: What, item: str = "", lane: str = "", process: str = "") -> None:
        self.entries.append(Entry(float(next(self._moments)), what, item, lane, process))

    def body(self, item: str, lane: str, run: str, ends: What = "ended") -> None:
        """Run a body: a step by itself. ``run`` tells who runs it, and names this one run."""
        self.note("began", item, lane, run)
        gate("body")
        self.note(ends, item, lane, run)

    def history_problems(self) -> list[str]:
        """Return what is wrong with the order, overlaps and number of the bodies.

        A run whose lease was taken away may overlap, and be repeated.
        """
        runs = {entry.process for entry in self.entries if entry.what == "began"}
        late = [run for run in runs if run.split()[1] in self.stale]
        held = [Entry(-1.0, "held", process=run) for run in late]
        history = _Told([*self.entries, *held], lease=0)
        history.set_aside = self.set_aside()
        return history.problems(repeats_allowed=len(self.stale))

    def set_aside(self) -> set[str]:
        """Return the items that need not have run to their end: a person cancelled them, say."""
        return set()

    def runs(self) -> list[tuple[str, str]]:
        """Return who ran what, in order."""
        return [(e.process.split()[0], e.item) for e in self.entries if e.what == "began"]

    def began(self, run: str) -> bool:
        """Return whether this one run has begun."""
        return any(entry.what == "began" and entry.process == run for entry in self.entries)

    def by(self, actor: str) -> list[str]:
        """Return what ``actor`` ran, in order."""
        return [item for name, item in self.runs() if name == actor]

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        with connections[self.using].cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def info(self, message: str, *_: object) -> None:
        """Hear, in place of the log, that a transaction starts again."""
        self.restarts += 1

    def _take_kick(self, task: str, *, countdown: float | None = None, **about: Any) -> bool:
        (self.kicks if countdown is None else self.later).append((task, about))
        return True


class _Told(History):
    """A history in which somebody may have decided that an item needs no end."""

    set_aside: Set[str] = frozenset()

    def lost(self) -> set[str]:
        return super().lost() - self.set_aside


class _Noting:
    """A transaction whose first hook says that it is committed."""

    def __init__(self, block: Any, told: Callable[[], None], using: str) -> None:
        self.block, self.told, self.using = block, told, using

    def __enter__(self) -> None:
        self.block.__enter__()
        transaction.on_commit(self.told, using=self.using)

    def __exit__(self, *error: Any) -> None:
        self.block.__exit__(*error)


def who() -> str:
    """Return the name of the actor whose thread this is."""
    actor = current()
    return actor.name if actor is not None else RECOVERY


def let_expire(row: Any) -> None:
    """Let the lease of a row be over, if it is still the one that ``row`` says.

    By its primary key: time takes no locks but of this row.
    """
    fence = {"pk": row.pk, "status": row.LEASED, "attempt": row.attempt}
    fenced_update(type(row), row.alias, fence, {"lease_until": from_now(-3600)})
