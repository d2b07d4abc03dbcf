"""Actors that stop at gates: before each statement, COMMIT and ROLLBACK, and where a body says so.

Only one of them moves at a time, and only when it is told to. Whoever waits for a lock of the
database has moved and not arrived; the server says that it waits.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from django.db import connections

from tests.faults import locks

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.002
"""How long an actor may take for a step before the server is asked whether it waits for a lock."""

COMMIT, ROLLBACK = "COMMIT", "ROLLBACK"

_UNGATED = re.compile(r"(RELEASE )?SAVEPOINT |SET ", re.IGNORECASE)
"""Statements that nobody else can notice."""

_here = threading.local()

Condition = Callable[[], bool]


class Aborted(BaseException):
    """Ends an actor in the midst; derived so that nobody takes it for an error of theirs."""


def gate(label: str, when: Condition | None = None) -> None:
    """Stop the actor whose thread this is; any other thread goes on.

    With ``when`` it is not told to go on before that holds, unless nobody else can move.
    """
    actor = current()
    if actor is not None:
        actor.stop_at(label, when)


def current() -> Actor | None:
    """Return the actor whose thread this is, while it plays."""
    actor: Actor | None = getattr(_here, "actor", None)
    return actor if actor is not None and actor.plays else None


@contextmanager
def without_gates() -> Iterator[None]:
    """Let the actor of this thread go through the block without a stop."""
    actor, _here.actor = getattr(_here, "actor", None), None
    try:
        yield
    finally:
        _here.actor = actor


class Actor:
    """A thread with a database connection of its own, kept from one play to the next."""

    def __init__(self, name: str, using: str, changed: threading.Condition) -> None:
        self.name, self.using, self._changed = name, using, changed
        self.plays = self.may_go = self.is_aborted = False
        self.label = ""
        self.when: Condition | None = None
        self.error: BaseException | None = None
        self.moves = True
        self.session: int | None = None
        """The server's number of this actor's session, as it was at the last gate."""

        self._parts: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"actor {name}", daemon=True)
        self._thread.start()

    def begin(self, part: Callable[[], object]) -> None:
        """Play ``part`` up to its first gate."""
        self.error, self.label, self.when = None, "", None
        self.plays, self.moves, self.is_aborted = True, True, False
        self._parts.put(part)

    def go(self) -> None:
        """Tell the actor to go on to its next gate."""
        with self._changed:
            self.may_go, self.moves = True, True
            self._changed.notify_all()

    def stop_at(self, label: str, when: Condition | None) -> None:
        if self.is_aborted:
            if label == ROLLBACK:
                return
            raise Aborted
        self.session = locks.session_of(self._connection)
        with self._changed:
            self.label, self.when, self.moves = label, when, False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.may_go)
            self.may_go = False
        if self.is_aborted:
            raise Aborted

    def close(self) -> None:
        self._parts.put(None)
        self._thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        _here.actor = self
        self._connection = connections[self.using]
        _prepare(self._connection)
        _gate_connection(self._connection)
        with self._changed:
            self.moves = False
            self._changed.notify_all()
        try:
            while (part := self._parts.get()) is not None:
                self._play(part)
        finally:
            connections.close_all()

    def _play(self, part: Callable[[], object]) -> None:
        try:
            part()
        except Aborted:
            self._connection.close()
        except BaseException as error:
            self.error = error
        with self._changed:
            self.plays = self.moves = False
            self._changed.notify_all()


class Stage:
    """The actors of a scenario, of which one moves at a time."""

    def __init__(self, names: Iterable[str], using: str) -> None:
        self.using, self._changed = using, threading.Condition()
        self.actors = {name: Actor(name, using, self._changed) for name in names}
        self._blocked: list[Actor] = []
        self.waits_seen = 0
        """How often an actor had to wait for a lock."""

    def __enter__(self) -> Self:
        self._settle()
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
        for actor in self.actors.values():
            actor.close()

    def begin(self, parts: Mapping[str, Callable[[], object]]) -> None:
        """Let every actor begin its part, and stop at its first gate."""
        for name, part in parts.items():
            self.actors[name].begin(part)
            self._settle()

    def runnable(self) -> list[str]:
        """Return who can be told to go on; those who only wait for others if nobody else can."""
        standing = [actor for actor in self.actors.values() if actor.plays and not actor.moves]
        ready = [actor.name for actor in standing if actor.when is None or actor.when()]
        if ready or any(actor.moves for actor in self.actors.values()):
            return ready
        return [actor.name for actor in standing]

    def step(self, name: str) -> str:
        """Let one actor go on to its next gate; return what it did, as its gate was labelled."""
        actor = self.actors[name]
        label = actor.label
        actor.go()
        self._settle()
        return label

    @property
    def is_over(self) -> bool:
        return not any(actor.plays for actor in self.actors.values())

    def errors(self) -> dict[str, BaseException]:
        """Return the errors that ended an actor's part."""
        return {name: actor.error for name, actor in self.actors.items() if actor.error}

    def told(self) -> str:
        """Return where everybody stands, for a message."""
        return ", ".join(
            f"{name} {'moves after' if actor.moves else 'stands before'} {actor.label}"
            for name, actor in self.actors.items()
            if actor.plays
        )

    def abort(self) -> None:
        """End every part that has not come to its end."""
        while not self.is_over:
            for actor in self.actors.values():
                actor.is_aborted = True
            for actor in [one for one in self.actors.values() if one.plays and not one.moves]:
                actor.go()
            self._settle()

    def _settle(self) -> None:
        """Wait until each actor stands at a gate, is done, or waits for a lock of one that does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: not self._moving(), LOOK_SECONDS):
                    self._blocked = []
                    return
                moving = self._moving()
            # All others stand still. If the server says of each of these that it waits, then it
            # waits until one of the others moves.
            sessions = {actor.session for actor in moving}
            if None not in sessions and locks.all_wait(sessions, self.using):  # type: ignore[arg-type]
                with self._changed:
                    if self._moving() == moving:
                        self.waits_seen += len(set(moving) - set(self._blocked))
                        self._blocked = moving
                        return
            assert time.monotonic() < deadline, f"{[actor.name for actor in moving]} hang"

    def _moving(self) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.moves]


def _prepare(connection: Any) -> None:
    """Ask what Django asks of each connection once, and let it wait for no more than it must.

    Deadlocks are found soon, and nothing waits for a disk: nobody pulls the plug here.
    """
    if connection.vendor == "mysql":
        assert connection.mysql_server_data
    elif connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET deadlock_timeout = '20ms'; SET synchronous_commit = off")


def _gate_connection(connection: Any) -> None:
    """Put a gate before each statement of this thread's connection, COMMIT and ROLLBACK too.

    There is none before BEGIN: on these engines a transaction begins with its first statement.
    """

    def execute(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not _UNGATED.match(sql.lstrip()):
            gate(_in_short(sql))
        return run(sql, params, many, context)

    def before(name: str) -> None:
        ending = getattr(connection, name.lower())

        def gated() -> None:
            gate(name)
            ending()

        setattr(connection, name.lower(), gated)

    connection.execute_wrappers.append(execute)
    before(COMMIT)
    before(ROLLBACK)


def _in_short(sql: str) -> str:
    words = sql.split()
    return f"{words[0]} … FOR UPDATE" if "FOR UPDATE" in sql else words[0]
