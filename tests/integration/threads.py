"""Threads with a database connection of their own, for tests of what happens at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event as Gate
from typing import TypeVar

from django.db import connections, transaction

T = TypeVar("T")
PATIENCE = 20.0


def at_once(*bodies: Callable[[], T]) -> list[T]:
    """Run ``bodies`` in a thread each and return their results; the first error is raised."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        futures = [pool.submit(closing_connections, body) for body in bodies]
        return [future.result(PATIENCE * 3) for future in futures]


@contextmanager
def open_transaction(using: str, body: Callable[[], T]) -> Iterator[OpenTransaction]:
    """Run ``body`` in a transaction of another thread and hold it open.

    Leaving the block commits, unless ``rolled_back()`` or ``committed()`` was called before.
    """
    held = OpenTransaction(using, body)
    held.begun.wait(PATIENCE)
    try:
        yield held
    finally:
        held.committed()


class OpenTransaction:
    """A transaction that waits for a decision."""

    def __init__(self, using: str, body: Callable[[], object]) -> None:
        self.begun, self._decided, self._undo = Gate(), Gate(), False
        self._pool = ThreadPoolExecutor(1)

        def transact() -> None:
            try:
                with transaction.atomic(using=using):
                    body()
                    self.begun.set()
                    assert self._decided.wait(PATIENCE), "nobody decided about the transaction"
                    if self._undo:
                        transaction.set_rollback(True, using=using)
            finally:
                self.begun.set()

        self._future: Future[None] = self._pool.submit(closing_connections, transact)

    def committed(self) -> None:
        self._decided.set()
        self._future.result(PATIENCE)
        self._pool.shutdown()

    def rolled_back(self) -> None:
        self._undo = True
        self.committed()


def closing_connections(body: Callable[[], T]) -> T:
    try:
        return body()
    finally:
        connections.close_all()


def wait_for(condition: Callable[[], bool]) -> None:
    """Ask for ``condition`` again and again until it holds; fail if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        Gate().wait(0.01)
