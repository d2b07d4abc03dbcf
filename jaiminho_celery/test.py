"""For users' own tests: what is in the outbox, without a broker, and delivered when they say so.

>>> class Orders(OutboxTestMixin, TestCase):
...     def test_an_order_is_announced(self):
...         place_order()
...         self.outbox.assert_sent(announce, {"order": 1})
...         self.outbox.drain()

With pytest there is the fixture ``outbox``, see ``pytest_plugin``. docs/testing.md tells the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

from parviraptor_celery.virtual_clock import virtual_clock

from . import holding, local_worker, sent, signals
from .draining import OPEN, Drain, in_order, rows_of, survive_errors
from .exceptions import DrainFailed
from .models import Event
from .outcomes import Published
from .sent import Call, Sent, call
from .states import EventStatus

__all__ = ["Call", "Outbox", "OutboxTestMixin", "Sent", "call", "virtual_clock"]

MOST_WRITTEN = 1000


class Outbox:
    """The outbox of a test. While ``held()``, nothing leaves it but by ``drain()``."""

    def __init__(self) -> None:
        self._published: list[Event] = []
        self._taken: list[dict[str, Any]] = []
        self._failed_tasks: list[Sent] = []
        self._drained_by: int | None = None

    @contextmanager
    def held(self) -> Iterator[Outbox]:
        """Hold the outbox: hooks don't publish, kicks and messages don't go to a broker.

        The events are rows as ever: signed, encoded, and gone after a rollback.
        """
        signals.event_settled.connect(self._note, weak=False, dispatch_uid=id(self))
        try:
            with holding.hold(self._take):
                yield self
        finally:
            signals.event_settled.disconnect(dispatch_uid=id(self))

    @property
    def events(self) -> list[Sent]:
        """What is written and waits, in the order of writing."""
        return _read(rows_of(*OPEN))

    @property
    def published(self) -> list[Sent]:
        """What was delivered, in the order of delivery."""
        return _read(self._published, EventStatus.SENT)

    @property
    def failed(self) -> list[Sent]:
        """What failed and waits for another try; and Celery tasks that ``drain()`` saw failing."""
        failed = [event for event in rows_of(*OPEN) if event.error_count]
        return _read(failed) + self._failed_tasks

    @property
    def dead(self) -> list[Sent]:
        """The dead letters."""
        return _read(rows_of(EventStatus.DEAD))

    @property
    def sent(self) -> list[Sent]:
        """Everything that was written, delivered or not, in the order of writing."""
        rows = {event.uuid: event for event in rows_of(*OPEN, EventStatus.SENT, EventStatus.DEAD)}
        gone = [event for event in self._published if event.uuid not in rows]
        events = sorted([*rows.values(), *gone], key=lambda event: (event.alias, event.pk))
        by_alias = [list(group) for _, group in groupby(events, key=lambda event: event.alias)]
        noted = {event.uuid for event in gone}
        return [
            item
            for event in in_order(*by_alias)
            for item in sent.read(event, EventStatus.SENT if event.uuid in noted else None)
        ]

    def drain(
        self,
        *,
        run_tasks: bool = True,
        raise_errors: bool = True,
        ignore_due_times: bool = True,
        limit: int = MOST_WRITTEN,
    ) -> list[Sent]:
        """Deliver everything in this process, also what is written meanwhile; return it.

        Functions run as the hook or the relay would run them; each event is tried once. Celery
        tasks run as in a worker, right after their message.

        Args:
            run_tasks: False only notes Celery's messages as published.
            raise_errors: False lets failures go the way of production: the event is put back or
                becomes a dead letter, see ``failed`` and ``dead``.
            ignore_due_times: False leaves what is due later: back-offs, for one.
            limit: most events that may be written meanwhile.

        Raises:
            DrainFailed: a function or task raised; its exception is the cause.
            DrainEndless: more than ``limit`` events were written meanwhile.
        """
        before = len(self._published)
        drain = Drain(raise_errors=raise_errors, ignore_due_times=ignore_due_times, limit=limit)
        with self._draining():
            for _ in drain.runs():
                taken, self._taken = self._taken, []
                for frozen in taken if run_tasks else ():
                    self._run_task(frozen, raise_errors)
        return _read(self._published[before:], EventStatus.SENT)

    def clear(self) -> None:
        """Forget everything so far: delete the events, and what was noted."""
        for event in rows_of(*EventStatus):
            Event.rows(event.alias).filter(pk=event.pk).delete()
        self._published.clear()
        self._failed_tasks.clear()

    def assert_sent(self, target: Any, *args: Any, **kwargs: Any) -> list[Sent]:
        """Assert that ``target`` was called with these arguments; return those calls.

        ``target`` is the decorated function, a Celery task, or the name of either. Without
        arguments any call will do. What was delivered counts, and what waits.
        """
        expected = call(target, *args, **kwargs)
        everything = self.sent
        found = [item for item in everything if expected.matches(item)]
        if not found:
            raise AssertionError(f"{expected} was not sent.\n{_listing(everything)}")
        return found

    def assert_not_sent(self, target: Any, *args: Any, **kwargs: Any) -> None:
        """Assert that ``target`` was not called with these arguments, or not at all."""
        expected = call(target, *args, **kwargs)
        everything = self.sent
        if any(expected.matches(item) for item in everything):
            raise AssertionError(f"{expected} was sent.\n{_listing(everything)}")

    def assert_nothing_sent(self) -> None:
        """Assert that nothing was written to the outbox."""
        if everything := self.sent:
            raise AssertionError(f"Something was sent.\n{_listing(everything)}")

    def assert_sent_in_order(self, *targets: Any) -> None:
        """Assert that ``targets`` were sent in this order; others may stand between them.

        Each is a target as in ``assert_sent``, or ``call(target, *args, **kwargs)``.
        """
        rest = iter(everything := self.sent)
        for position, expected in enumerate(call(target) for target in targets):
            if not any(expected.matches(item) for item in rest):
                behind = " in this place" if position else ""
                raise AssertionError(
                    f"{expected}, the expected number {position + 1}, was not sent{behind}.\n"
                    f"{_listing(everything)}"
                )

    @contextmanager
    def _draining(self) -> Iterator[None]:
        if self._drained_by is not None:
            raise RuntimeError("drain() was called by something that drain() runs.")
        self._drained_by = threading.get_ident()
        try:
            yield
        finally:
            self._drained_by = None
            self._taken.clear()

    def _run_task(self, frozen: dict[str, Any], raise_errors: bool) -> None:
        try:
            survive_errors(lambda: local_worker.run(frozen))
        except Exception as error:
            name, _, _, headers = local_worker.read(frozen)
            if raise_errors:
                raise DrainFailed(
                    f"The task {name} ({headers['id']}) failed with {type(error).__name__}: "
                    f"{error}\nPass raise_errors=False to go on after it, or run_tasks=False."
                ) from error
            self._failed_tasks += [
                replace(item, error=f"{type(error).__name__}: {error}")
                for item in self.published
                if item.task_id == headers["id"]
            ]

    def _take(self, messages: list[dict[str, Any]]) -> None:
        # Relays that the test starts itself publish too, and run no tasks.
        if self._drained_by == threading.get_ident():
            self._taken += messages

    def _note(self, event: Event, outcome: Any, **_: Any) -> None:
        if isinstance(outcome, Published):
            self._published.append(event)


class OutboxTestMixin:
    """Gives a unittest.TestCase ``self.outbox``; stands before Django's class in the bases."""

    outbox: Outbox

    def setUp(self) -> None:
        self.outbox = Outbox()
        held = self.outbox.held()
        held.__enter__()
        self.addCleanup(held.__exit__, None, None, None)  # type: ignore[attr-defined]
        super().setUp()  # type: ignore[misc]


def _read(events: list[Event], status: EventStatus | None = None) -> list[Sent]:
    return [item for event in events for item in sent.read(event, status)]


def _listing(everything: list[Sent]) -> str:
    if not everything:
        return "Nothing was sent."
    lines = (f"  {number}. {item}" for number, item in enumerate(everything, 1))
    return "Sent were:\n" + "\n".join(lines)
