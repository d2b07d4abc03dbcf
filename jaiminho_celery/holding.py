"""A test holds the outbox: what is committed stays in its rows, and messages go to the test.

It holds for every thread of the process, since a test may start some. Nothing else uses this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parviraptor_celery import broker

Taker = Callable[[list[dict[str, Any]]], None]

_takers: list[Taker] = []


def is_held() -> bool:
    """Return whether a test holds the outbox, so that hooks must not publish."""
    return bool(_takers)


def take(messages: list[dict[str, Any]]) -> None:
    """Hand frozen messages to the test instead of the broker."""
    _takers[-1](messages)


@contextmanager
def hold(taker: Taker) -> Iterator[None]:
    """Hold the outbox while the block runs; ``taker`` is given the messages that are published."""
    _takers.append(taker)
    try:
        with broker.silence():
            yield
    finally:
        _takers.remove(taker)
