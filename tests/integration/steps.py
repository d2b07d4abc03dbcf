"""Something that happens just before the nth statement of a worker: every interleaving in turn.

The tests know nothing of which statements there are, or in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.db import connections


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

    def step(self) -> None:
        if not self.has_begun:
            return
        self.taken += 1
        if self.taken == self.number:
            self.interfere()


@contextmanager
def before_step(number: int, using: str, interfere: Callable[[], None]) -> Iterator[Steps]:
    """Call ``interfere`` just before the step ``number`` of this thread, counted from 1."""
    steps, connection = Steps(number, interfere), connections[using]
    commit = connection.commit

    def execute(run: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        steps.step()
        return run(sql, params, many, context)

    def committing() -> None:
        steps.step()
        commit()

    with (
        connection.execute_wrapper(execute),
        mock.patch.object(connection, "commit", committing),
    ):
        yield steps
