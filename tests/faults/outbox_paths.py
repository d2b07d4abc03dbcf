"""What processes do with events, for deaths at each step of it; and what has to come of that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path as File
from typing import Any

from django.db import connections, transaction

from jaiminho_celery import cleanup, hooks, kicks, sweep, tasks
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.dispatch import nudge_budget
from jaiminho_celery.models import Event, Tick
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from jaiminho_celery.serialization import decode_call
from parviraptor_celery import broker
from parviraptor_celery.clock import from_now, local_now
from parviraptor_celery.drains import Budget
from tests.faults.crashes import Path, World
from tests.faults.forks import PATIENCE_SECONDS, Child, Fault, Way
from tests.faults.history import History
from tests.faults.steps import Step
from tests.integration.test_celery_messages import drain_queue
from tests.testapp.models import Note

OPEN = ("WAITING", "PUBLISHING")
CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (LookupError,)}


class OutboxWorld(World):
    """Calls of two functions, with and without order. Each is named by its first argument.

    A note that is written in the transaction of a call tells whether that was committed.
    """

    def __init__(self, using: str, folder: File) -> None:
        super().__init__(using, folder)
        self.call = save_to_outbox(name="tests.faults.call")(self.body)
        in_order = save_to_outbox_stream(
            "faults",
            PublishStrategyType.KEEP_ORDER,
            key=lambda name, *_: name[0],
            name="tests.faults.call_in_order",
        )
        self.call_in_order = in_order(lambda *args: self.body(*args))

    @property
    def rows(self) -> Any:
        return Event.rows(self.using)

    def body(self, name: str, word: str = "") -> None:
        """Be both functions."""
        self.come_by(Step("body", f"the call {name}"), lambda: self._body(name, word))

    def _body(self, name: str, word: str) -> None:
        lane = name[0] if word == "ordered" else ""
        is_first = name not in self.told("began")
        self.ledger.note("began", name, lane)
        if word == "fails" and is_first:
            self.ledger.note("broke", name, lane)
            raise ConnectionError("the other side is away")
        self.ledger.note("ended", name, lane)
        if word == "dead":
            raise LookupError("never")

    def told(self, what: str) -> set[str]:
        """Return of which calls the ledger says so."""
        return {entry.item for entry in self.ledger.entries() if entry.what == what}

    def send(self, function: Any, *names: str, word: str = "") -> None:
        """Call a function in one transaction, with a note for each call."""
        for name in names:
            self.ledger.note("intended", name)
        with transaction.atomic(using=self.using):
            for name in names:
                Note.objects.using(self.using).create(text=name)
                function(name, word)
        for name in names:
            self.ledger.note("committed", name)

    def deliver(self) -> None:
        """Be the worker that takes every nudge, and those that this makes."""
        while self.kicks:
            kick = dict(self.kicks.pop(0))
            kick.pop("countdown", None)
            assert kick.pop("task") == kicks.RELAY
            tasks.relay_events.apply(kwargs=kick, throw=True)

    def tidy(self) -> None:
        for rows in (self.rows, Note.objects.using(self.using), Tick.objects.using(self.using)):
            rows.all().delete()
        kicks._asked_for.clear()
        broker.close_breaker()

    def note_left(self, child: Child) -> None:
        self.left = [event.pk for event in self.rows.filter(status="PUBLISHING")]

    def work(self) -> None:
        self.deliver()
        sweep.sweep_all(nudge_budget(), force=True)
        self.deliver()

    def is_open(self) -> bool:
        return bool(self.rows.filter(status__in=OPEN).exists())

    def problems(self, path: Path, child: Child, fault: Fault | None) -> Iterator[str]:
        is_lost = fault is not None and fault.way is Way.LOST
        is_killed = fault is not None and not is_lost
        yield from self._of_rows(path, is_killed)
        yield from self._of_calls(path, path.repeats if is_killed else 0)
        if path.goes_on and not child.was_killed:
            yield from self._of_who_went_on(path, child)

    def ended(self) -> dict[str, str]:
        """Return the state of each event, by its name."""
        return {name_of(event): event.status for event in self.rows}

    def _of_rows(self, path: Path, is_killed: bool) -> Iterator[str]:
        ends = path.expected.get("ends", {})
        undone = path.expected.get("undone")
        for event in self.rows:
            name = name_of(event)
            if event.status != ends.get(name, "SENT") and self.ended() != undone:
                yield f"{name} is {event.status}, and not {ends.get(name, 'SENT')}"
            if event.running_lane or event.lease_until or event.leased_by:
                yield f"{name} is still leased"
            most = path.expected.get("errors", {}).get(name, 0) + is_killed
            if event.error_count > most:
                yield f"{name} has counted {event.error_count} errors, {most} allowed"

    def _of_calls(self, path: Path, repeats: int) -> Iterator[str]:
        committed = set(Note.objects.using(self.using).values_list("text", flat=True))
        never = path.expected.get("never", set())
        if missing := self.told("committed") - committed:
            yield f"gone: {sorted(missing)}"
        if self.ended() == path.expected.get("undone"):
            never = committed
        yield from History(self.ledger.entries(), committed - never).problems(repeats)

    def _of_who_went_on(self, path: Path, child: Child) -> Iterator[str]:
        """One that lives on finds out what is his: nothing waits for the end of a lease."""
        if child.error and path.expected.get("may_raise"):
            return
        if child.error:
            yield f"it raised {child.error}"
        if self.left:
            yield f"it left {len(self.left)} to wait for the end of a lease"
        for complaint in child.complaints:
            if "outlived its lease" in complaint:
                yield f"it said: {complaint}"


class MessageWorld(OutboxWorld):
    """Celery messages on a real broker. That one arrived is what counts as its run."""

    def __init__(self, using: str, folder: File, app: Any, url: str, queue: str) -> None:
        super().__init__(using, folder)
        self.app, self.url, self.queue, self._use = app, url, queue, broker.use

    def use(self, app: Any, action: Any) -> Any:
        """Stand in for ``broker.use()``."""
        step = Step("message", "what goes to the broker")
        return self.come_by(step, lambda: self._use(app, action))

    def send_messages(self) -> None:
        def delay(name: str, _: str) -> None:
            self.app.tasks["wire.add"].delay(name, 0)

        self.send(delay, "a", "b", "c")

    def problems(self, path: Path, child: Child, fault: Fault | None) -> Iterator[str]:
        for body, _, _ in self.arrived():
            name = json.loads(body)[0][0]
            self.ledger.note("began", name)
            self.ledger.note("ended", name)
        yield from super().problems(path, child, fault)

    def tidy(self) -> None:
        super().tidy()
        self.arrived()

    def arrived(self) -> list[Any]:
        """Take every message from the broker; RabbitMQ may not have the queue yet.

        The queue stays: a process that has declared it doesn't do so again.
        """
        return drain_queue(self.url, self.queue, delete=False)


def name_of(event: Event) -> str:
    (first, *_), _ = decode_call(event.body, event.version)
    return first if isinstance(first, str) else str(json.loads(first[0]["body"])[0][0])


# What is there before


def nothing(world: OutboxWorld) -> None:
    """Nothing is there."""


def whose_hooks_died(world: OutboxWorld) -> None:
    """Three calls were committed, and then the process was gone; the leases have run out."""
    _without_hooks(lambda: world.send(world.call, "a", "b", "c"))
    _expire(world)


def messages_whose_hooks_died(world: MessageWorld) -> None:
    _without_hooks(world.send_messages)
    _expire(world)


def in_order(*names: str, word: str = "ordered") -> Callable[[OutboxWorld], None]:
    """Calls wait in the lanes that the first letters of their names are."""

    def arrange(world: OutboxWorld) -> None:
        for name in names:
            world.send(world.call_in_order, name, word=word)

    return arrange


def dead(world: OutboxWorld) -> None:
    """A dead letter, and what waits behind it."""
    in_order("x1", "x2")(world)
    head = world.rows.order_by("id").first()
    world.rows.filter(pk=head.pk).update(status="DEAD", error_message="never")
    world.kicks.clear()


def old(world: OutboxWorld) -> None:
    in_order("x1", "x2", "y1")(world)
    world.deliver()
    world.rows.update(sent_at=local_now() - timedelta(days=30))


def _without_hooks(send: Callable[[], None]) -> None:
    publish, hooks._publish_after_commit = hooks._publish_after_commit, lambda *_: None
    try:
        send()
    finally:
        hooks._publish_after_commit = publish


def _expire(world: OutboxWorld) -> None:
    world.rows.update(lease_until=from_now(-timedelta(minutes=5)))


# What is done


def call(*names: str, word: str = "") -> Callable[[OutboxWorld], None]:
    def act(world: OutboxWorld) -> None:
        world.send(world.call, *names, word=word)

    return act


def call_in_order(world: OutboxWorld) -> None:
    world.send(world.call_in_order, "x1", "x2", word="ordered")


def relay(world: OutboxWorld) -> None:
    """Be the command ``events_relay``."""
    sweep.relay_here(world.using, Budget.endless())


def take_nudges(world: OutboxWorld) -> None:
    """Be the worker."""
    world.deliver()


def sweep_and_take_nudges(world: OutboxWorld) -> None:
    sweep.sweep_all(nudge_budget())
    world.deliver()


def replay(world: OutboxWorld) -> None:
    world.rows.get(status="DEAD").replay()


def skip(world: OutboxWorld) -> None:
    world.rows.get(status="DEAD").skip()


def clean(world: OutboxWorld) -> None:
    cleanup.clean(world.using)


def send_messages(world: MessageWorld) -> None:
    """Send, in one transaction, and end as a process does."""
    if connections[world.using].vendor == "sqlite":
        world.send_messages()
        return
    with hooks.background._changed:  # the thread begins when all are there: one batch
        world.send_messages()
    assert hooks.flush(PATIENCE_SECONDS)


def _path(name: str, arrange: Any, act: Any, least: int, **options: Any) -> Path:
    fields = {"goes_on", "repeats", "engines"} & set(options)
    known = {field: options.pop(field) for field in fields}
    return Path(name, arrange, act, least, **known, expected=options)


BEHIND_DEAD = {"x1": "DEAD", "x2": "WAITING"}

PATHS = [
    _path("on-commit", nothing, call("a", "b"), 11, may_raise=True),
    _path(
        "on-commit-fails",
        nothing,
        call("a", word="fails"),
        7,
        may_raise=True,
        errors={"a": 1},
        engines="P",
    ),
    _path("relay", whose_hooks_died, relay, 26, engines="PM"),
    _path("keep-order", nothing, call_in_order, 9, may_raise=True, engines="PM"),
    _path("keep-order-relay", in_order("x1", "x2", "y1"), take_nudges, 18),
    _path(
        "dead-letter",
        in_order("x1", word="dead"),
        take_nudges,
        5,
        ends={"x1": "DEAD"},
        errors={"x1": 1},
        engines="PM",
    ),
    _path("replay", dead, replay, 6, goes_on=False, undone=BEHIND_DEAD, engines="P"),
    _path(
        "skip",
        dead,
        skip,
        6,
        goes_on=False,
        undone=BEHIND_DEAD,
        ends={"x1": "SKIPPED"},
        never={"x1"},
        engines="P",
    ),
    _path("outbox-sweep", whose_hooks_died, sweep_and_take_nudges, 30, goes_on=False, engines="P"),
    _path("outbox-clean", old, clean, 4, goes_on=False, engines="P"),
]
MESSAGE_PATHS = [
    _path("messages", nothing, send_messages, 13, may_raise=True, repeats=3, engines="PM"),
    _path("messages-relay", messages_whose_hooks_died, relay, 19, repeats=3),
]
