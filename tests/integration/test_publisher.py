"""The background thread by itself: what it makes of several databases, and what can't end it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from jaiminho_celery import hooks, publisher
from jaiminho_celery.hooks import Leased
from jaiminho_celery.models import Event
from jaiminho_celery.publisher import BackgroundPublisher

PATIENCE = 20.0


def leased(alias: str, body: str = "") -> Leased:
    event = Event(body=body)
    event._state.db = alias
    return hooks.Leased(event, 0.0)


class Held:
    """Notes each batch, and publishes only once it is let go; then it may raise."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.reached, self.opened = threading.Event(), threading.Event()
        self.act: Callable[[], Any] = lambda: None

    def publish(self, batch: list[Leased]) -> None:
        self.batches.append([one.event.alias for one in batch])
        self.reached.set()
        assert self.opened.wait(PATIENCE)
        self.act()


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def background(held: Held) -> BackgroundPublisher:
    """A thread that is busy with one event."""
    background = BackgroundPublisher(held.publish)
    background.add(leased("first"))
    assert held.reached.wait(PATIENCE)
    return background


def test_databases_that_take_turns_make_a_batch_each(
    held: Held, background: BackgroundPublisher
) -> None:
    for number in range(100):
        background.add(leased("ab"[number % 2]))
    held.opened.set()
    assert background.flush(PATIENCE)
    assert held.batches == [["first"], ["a"] * 50, ["b"] * 50]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_receiver_that_exits_strands_nothing(held: Held, background: BackgroundPublisher) -> None:
    for _ in range(publisher.BATCH + 1):
        background.add(leased("a"))
    exits = iter([SystemExit()])

    def exit_once() -> None:
        if (error := next(exits, None)) is not None:
            raise error

    held.act = exit_once
    ended = background._thread
    held.opened.set()
    assert background.flush(PATIENCE), "though nobody sends anything more"
    assert background._thread is not ended
    assert [len(batch) for batch in held.batches] == [1, publisher.BATCH, 1]


@pytest.mark.parametrize("limit", ["MOST_WAITING", "MOST_BYTES"])
def test_that_too_many_wait_is_said_once(
    held: Held,
    background: BackgroundPublisher,
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(publisher, limit, 3)
    for _ in range(20):
        background.add(leased("a", body="x"))
    held.opened.set()
    assert background.flush(PATIENCE)

    assert sum("too many wait" in record.getMessage() for record in caplog.records) == 1
    assert [len(batch) for batch in held.batches] == [1, 3]
