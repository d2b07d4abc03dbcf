"""The steps of a process: each statement, COMMIT, ROLLBACK and hook after a commit, one by one.

Whoever comes by a step may do something before or after it, lose what it answers, or kill the
process. Nobody has to know which steps there are, or in which order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

from django.db import connections

Kind = Literal["statement", "commit", "rollback", "hook", "message", "body"]

NAME_LENGTH = 100
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE \S+ SET|UPDATE \S+ FORCE|DELETE FROM)", re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """Something that either happens or doesn't, should the process die."""

    kind: Kind
    name: str
    connection: Any = None
    is_durable: bool = False
    """Whether what was written until then is there for good once it is done."""

    def __str__(self) -> str:
        return self.name


ComeBy = Callable[[Step, Callable[[], Any]], Any]
"""Gets a step and what does it, and returns what that returns."""


@contextmanager
def stepping(connection: Any, come_by: ComeBy) -> Iterator[None]:
    """Have ``come_by`` do each step of ``connection``, also after it was opened anew."""

    def execute(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        is_durable = connection.get_autocommit() and bool(_WRITES.search(sql))
        step = Step("statement", _shortened(sql), connection, is_durable)
        return come_by(step, lambda: run(sql, params, many, context))

    commit, rollback = connection._commit, connection._rollback
    run_hooks = connection.run_and_clear_commit_hooks

    def committing() -> None:
        come_by(Step("commit", "COMMIT", connection, is_durable=True), commit)

    def rolling_back() -> None:
        come_by(Step("rollback", "ROLLBACK", connection), rollback)

    def running_hooks() -> None:
        connection.run_on_commit = [
            (savepoints, _Hook(hook, come_by, connection), robust)
            for savepoints, hook, robust in connection.run_on_commit
        ]
        run_hooks()

    with ExitStack() as stack:
        stack.enter_context(connection.execute_wrapper(execute))
        stack.enter_context(mock.patch.object(connection, "_commit", committing))
        stack.enter_context(mock.patch.object(connection, "_rollback", rolling_back))
        stack.enter_context(
            mock.patch.object(connection, "run_and_clear_commit_hooks", running_hooks)
        )
        yield


class Steps:
    """Counts the statements and COMMITs of this thread's connection from ``begin()`` on."""

    def __init__(self, number: int, interfere: Callable[[], None]) -> None:
        self.number, self.interfere = number, interfere
        self.taken = 0
        self.has_begun = False

    def begin(self) -> None:
        """Count from here."""
        self.has_begun = True

    @property
    def was_reached(self) -> bool:
        return self.taken >= self.number

    def come_by(self, step: Step, do: Callable[[], Any]) -> Any:
        if self.has_begun and step.kind in ("statement", "commit"):
            self.taken += 1
            if self.taken == self.number:
                self.interfere()
        return do()


@contextmanager
def before_step(number: int, using: str, interfere: Callable[[], None]) -> Iterator[Steps]:
    """Call ``interfere`` just before the step ``number`` of this thread, counted from 1."""
    steps = Steps(number, interfere)
    with stepping(connections[using], steps.come_by):
        yield steps


class _Hook:
    """A hook after a commit, which is a step."""

    def __init__(self, hook: Any, come_by: ComeBy, connection: Any) -> None:
        self.__qualname__ = getattr(hook, "__qualname__", repr(hook))  # for Django's log
        self._hook, self._come_by, self._connection = hook, come_by, connection

    def __call__(self) -> None:
        name = f"the hook {self.__qualname__.rpartition('.')[2]}"
        self._come_by(Step("hook", name, self._connection), self._hook)


def _shortened(sql: str) -> str:
    words = " ".join(sql.replace('"', "").replace("`", "").split())
    return words if len(words) <= NAME_LENGTH else f"{words[: NAME_LENGTH - 1]}…"
