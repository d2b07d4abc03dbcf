"""How one thing is done to both the outbox and its model. The rules: outbox_machine.py."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar
from unittest import mock

from django.db import transaction
from hypothesis import note

from jaiminho_celery import registry, signals, tasks
from jaiminho_celery.dispatch import EventLaneFeed
from jaiminho_celery.kicks import RELAY
from jaiminho_celery.models import Event as Row
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from jaiminho_celery.strategies import lane_of
from parviraptor_celery.crash_points import Crash, CrashAt
from parviraptor_celery.exceptions import IllegalTransition
from tests.faults.doom import Died, Doom
from tests.faults.machines import HOUR, BesideAModel, InSavepoint, Undone
from tests.faults.outbox_model import DEAD, Event, Habits, Outbox
from tests.faults.outbox_steps import (
    NAMES,
    RELAY_ROWS,
    SIGNALS,
    Dawdle,
    Decide,
    Hopeless,
    RelayInBetween,
    Send,
)


class OutboxHands(BesideAModel):
    """Does one thing to both the outbox and its model, and finds an event in both."""

    habits: ClassVar[Habits]
    refusals = (IllegalTransition,)

    def __init__(self) -> None:
        super().__init__()
        self.model: Outbox = Outbox(self.habits)
        self.numbers = itertools.count(1)
        self.calls: list[int] = []
        self.told: list[tuple[str, int]] = []
        self.seen: list[tuple[Any, Event]] = []
        self.slow: list[tuple[Any, Event]] = []
        self.written: list[tuple[Event | None, int]] = []
        """What the transaction wrote and when, in the order of its hooks; None: a relay comes."""

        self.final: dict[int, dict[str, Any]] = {}
        self.unattended: set[str | None] = set()
        self.crash = CrashAt("", "raise", 0)
        self.functions = self._functions()
        self.lanes = [lane_of("machine", ""), lane_of("machine keys", "a")]
        self.lanes.append(lane_of("machine keys", "b"))
        self._enter_world()
        self.rows._raw_delete(self.using)

    @property
    def rows(self) -> Any:
        return Row.rows(self.using)

    def _functions(self) -> dict[str, Any]:
        """Return the decorated functions, by the names of the steps."""

        def publish(number: int, key: str = "") -> None:
            self.calls.append(number)
            self.crash.point == "called" and self.crash.come_by()
            match self.model.endings[number]:
                case "failing":
                    raise RuntimeError("not yet")
                case "hopeless":
                    raise Hopeless

        hooked = save_to_outbox(name="machine.hooked")(publish)
        ordered = save_to_outbox_stream("machine", "keep-order", name="machine.ordered")(publish)
        keyed = save_to_outbox_stream(
            "machine keys", "keep-order", key=lambda number, key: key, name="machine.keyed"
        )(publish)
        self.calling: dict[str, Callable[[int], Any]] = {
            "hooked": hooked,
            "in a stream": ordered,
            "key a": lambda number: keyed(number, "a"),
            "key b": lambda number: keyed(number, "b"),
        }
        names = ("machine.hooked", "machine.ordered", "machine.keyed")
        return {
            step: registry._functions[name] for step, name in zip(NAMES[:3], names, strict=True)
        }

    def _enter_world(self) -> None:
        time = mock.Mock(monotonic=lambda: (self.clock.now() - self.start).total_seconds())
        for module in ("hooks", "strategies"):
            self.world.enter_context(mock.patch(f"jaiminho_celery.{module}.time", time))
        self.world.enter_context(self.coming_back(tasks, RELAY))
        for name, what in SIGNALS.items():
            self._listen(getattr(signals, name), what)
            self._listen(getattr(signals, f"{name}_by_events_relay"), f"{what} by relay")
        self._connect(signals.event_settled, lambda **_: self._come_by("settled"))

    def _listen(self, signal: Any, what: str) -> None:
        self._connect(signal, lambda event_id, **_: self.told.append((what, event_id)))

    def _connect(self, signal: Any, receive: Callable[..., None]) -> None:
        signal.connect(receive, weak=False)
        self.world.callback(signal.disconnect, receive)

    def _come_by(self, point: str) -> None:
        if self.crash.point == point:
            self.crash.come_by()

    @contextmanager
    def _dying(self, doom: Doom) -> Iterator[CrashAt]:
        self.crash = CrashAt(doom.point, "raise", doom.nth)
        try:
            yield self.crash
        except Crash:
            pass
        finally:
            self.crash.clear_away()

    def _claim_slowly(self, lane: str) -> None:
        self.count("slow relay claims")
        found, event = EventLaneFeed(self.rows, lane).first(), self.model.claim(lane)
        assert event is not None
        assert found.pk == event.id
        self.slow.append((found, event))

    def _both(self, library: Callable[[], Any], model: Callable[[], None], doom: Doom) -> None:
        """Let both do something, and die at the same moment if they come there."""
        with self._dying(doom) as crash:
            library()
        self.crash = CrashAt("", "raise", 0)
        self.model.doom = replace(doom)
        try:
            model()
        except Died:
            assert crash.has_happened
            self.unattended.update([*self.lanes, None])
        else:
            assert not crash.has_happened

    def _transact(self, name: str, steps: list[Any], doom: Doom | None = None) -> None:
        self.count(name)
        self.written = []

        def library() -> None:
            with transaction.atomic(using=self.using):
                for step in steps:
                    self.do(step)

        self._both(library, self._run_hooks, doom or Doom())

    def _run_hooks(self) -> None:
        for event, at in self.written:
            if event is None:
                self._sweep_model()
            elif event.lane is None and event.id in self.model.events:
                self.model.doom.come_by("committed")
                self.model.hook(event, is_late=self.model.now > at)

    def _roll_back(self, steps: list[Any]) -> None:
        self.count("transaction rolled back")
        before, now = copy.deepcopy(self.model), self.model.now
        self.written = []
        with suppress(Undone), transaction.atomic(using=self.using):
            for step in steps:
                self.do(step)
            now = self.model.now
            raise Undone
        self.model = before
        self._time_has_come(now)

    def _deploy(self, name: str) -> None:
        function = self.functions[name]
        if function.name in self.model.unknown:
            registry._functions[function.name] = function
        else:
            del registry._functions[function.name]
        self.model.unknown ^= {function.name}

    def do(self, step: Any) -> None:
        match step:
            case Send(copies=copies):
                for _ in range(copies):
                    self._send(step)
            case Dawdle(hours=hours):
                self._pass_time(hours)
            case RelayInBetween():
                transaction.on_commit(self._sweep, using=self.using)
                self.written.append((None, 0))
            case Decide() if self.model.events:
                self._decide(step)
            case InSavepoint(step=inner):
                written, now = list(self.written), self.model.now
                self.in_savepoint(inner)
                self.written, then = written, self.clock.now() - self.start
                self.model.now = max(now, then // HOUR)

    def _send(self, step: Send) -> None:
        number = next(self.numbers)
        self.model.endings[number] = step.ending
        if step.name == "hooked":
            transaction.on_commit(lambda: self._come_by("committed"), using=self.using)
        self.calling[step.name](number)
        row = self.rows.order_by("-id").values("id", "name", "lane")[0]
        event = self.model.write(Event(number=number, **row))
        self.written.append((event, self.model.now))

    def _decide(self, step: Decide) -> None:
        if step.is_stale and self.seen:
            found, seen = self.seen[step.which % len(self.seen)]
            found = copy.copy(found)
        else:
            found, seen = self._chosen(step.which)
            self.seen.append((copy.copy(found), seen))
        note(f"  # {step.verb} event {seen.id}, seen as {seen.status}")
        expected = self.outcome_of(lambda: getattr(self.model, step.verb)(seen))
        assert self.outcome_of(getattr(found, step.verb)) == expected

    def _chosen(self, which: int) -> tuple[Any, Event]:
        """Return an event as it is in the database, and as it is in the model."""
        dead = self.model.those(DEAD) or list(self.model.events.values())
        event = dead[which % len(dead)]
        return self.rows.get(pk=event.id), event

    def _sweep(self) -> None:
        tasks.relay_events.run(force=True)

    def _sweep_model(self) -> None:
        self.model.rescue()
        self.model.relay_pool(RELAY_ROWS)

    def _waiting(self) -> set[str | None]:
        lanes: set[str | None] = {lane for lane in self.lanes if self.model.next_of(lane)}
        return lanes | ({None} if self.model.due() else set())

    def _pass_time(self, hours: int) -> None:
        before = self._waiting()
        self.set_forward(hours)
        self.unattended |= self._waiting() - before

    def _time_has_come(self, now: int) -> None:
        before = self._waiting()
        self.model.now = now
        self.unattended |= self._waiting() - before
