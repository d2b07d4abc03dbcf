"""What the outbox does, as a dictionary of events and an hour: the model of test_outbox_machine.py.

It has no database, no races and no broker. Every pause of it is a whole number of hours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import takewhile
from typing import Any

from jaiminho_celery.states import TRANSITIONS, EventStatus
from tests.faults.doom import Doom, Refused

WAITING, PUBLISHING, DEAD = EventStatus.WAITING, EventStatus.PUBLISHING, EventStatus.DEAD
BATCH = 10


@dataclass(frozen=True)
class Habits:
    """What the settings say."""

    keeps_hooked: bool = False
    """PERSIST_ALL_EVENTS"""
    keeps_relayed: bool = True
    """DELETE_AFTER_SEND is off"""
    most_attempts: int | None = None


@dataclass
class Event:
    """One row. Times are hours; ``due`` is 0 for an event that has no due time."""

    id: int
    number: int
    name: str
    lane: str | None = None
    due: int = 0
    since: int = 0
    status: EventStatus = WAITING
    errors: int = 0
    attempt: int = 0
    lease: int | None = None
    is_sent: bool = False
    moment: datetime | None = None
    """``due`` as the database has it, once it was read: what is due first goes first."""


@dataclass
class Outbox:
    """The events that are committed, and what came of them."""

    habits: Habits
    events: dict[int, Event] = field(default_factory=dict)
    endings: dict[int, str] = field(default_factory=dict)
    """How the function ends that is called with a number: well (""), or how it fails."""

    unknown: set[str] = field(default_factory=set)
    """The names of functions that this process doesn't know at the moment."""

    calls: list[int] = field(default_factory=list)
    signals: list[tuple[str, int]] = field(default_factory=list)
    now: int = 0
    doom: Doom = field(default_factory=Doom)

    # What is so

    def those(self, status: EventStatus, **equal: Any) -> list[Event]:
        found = (event for event in self.events.values() if event.status == status)
        alike = (event for event in found if all(getattr(event, k) == equal[k] for k in equal))
        return sorted(alike, key=lambda event: event.id)

    def next_of(self, lane: str) -> Event | None:
        """The head of a lane, if it is due and nothing holds it."""
        head = next(iter(self.those(WAITING, lane=lane)), None)
        if head is None or head.due > self.now or self.those(PUBLISHING, lane=lane):
            return None
        return None if any(dead.id < head.id for dead in self.those(DEAD, lane=lane)) else head

    def due(self) -> list[Event]:
        """What keeps no order and is due, the longest first; what was put back just now, last."""
        found = [event for event in self.those(WAITING, lane=None) if event.due <= self.now]
        return sorted(found, key=lambda e: (e.moment is None, e.moment or e.id, e.id))

    def is_as(self, seen: Event) -> bool:
        event = self.events.get(seen.id)
        return event is not None and (event.status, event.attempt) == (seen.status, seen.attempt)

    # What writers and their hooks do

    def write(self, event: Event) -> Event:
        born = replace(event, since=self.now)
        if event.lane is None:  # leased to its own hook
            leased = {"status": PUBLISHING, "attempt": 1, "lease": self.now + 1}
            born = replace(born, **leased, due=self.now)
        self.events[event.id] = born
        return born

    def hook(self, written: Event, *, is_late: bool) -> None:
        """Publish what was written, right after the commit, if it is still ours."""
        if is_late and not self.is_as(written):
            return
        if is_late:
            self.events[written.id] = replace(self.events[written.id], lease=self.now + 1)
        self.publish(written, by_relay=False)

    # What the relay does

    def relay_lanes(self, lanes: list[str], budget: int) -> None:
        for lane in lanes:
            claimed: Event | None = None
            while budget and (event := claimed or self.claim(lane)):
                budget -= 1
                claimed = self.publish(event, and_next=budget > 0)

    def relay_pool(self, budget: int) -> None:
        """Publish what is due by now; what fails is due later, and not tried twice."""
        waiting = self.due()
        while budget and waiting:
            alone, look = waiting[0].errors > 0, waiting[: min(BATCH, budget)]
            batch = waiting[:1] if alone else [*takewhile(lambda e: not e.errors, look)]
            waiting = waiting[len(batch) :]
            for event in [self.lease(event) for event in batch]:
                budget -= 1
                self.publish(event)

    def rescue(self) -> None:
        """Give back what dead hooks and relays have."""
        expired = [e for e in self.those(PUBLISHING) if e.lease <= self.now]  # type: ignore[operator]
        for event in expired:
            if event.attempt <= 1:
                self.rest(event, WAITING, due=self.now)
            elif event.errors and self.is_last(event):
                self.rest(event, DEAD, errors=event.errors + 1)
            else:
                self.rest(event, WAITING, due=self.now + 1, errors=event.errors + 1)
        for event in expired:
            if self.events[event.id].status == DEAD:
                self.tell("permanently failed", event, by_relay=True)

    def claim(self, lane: str) -> Event | None:
        return self.lease(found) if (found := self.next_of(lane)) else None

    def lease(self, event: Event) -> Event:
        return self.rest(event, PUBLISHING, lease=self.now + 1, attempt=event.attempt + 1)

    def publish(
        self, event: Event, *, by_relay: bool = True, and_next: bool = False
    ) -> Event | None:
        """Call the function and settle; return what was claimed together with that."""
        ending = "unknown" if event.name in self.unknown else self.endings[event.number]
        if ending != "unknown":
            self.calls.append(event.number)
            self.doom.come_by("called")
        if not self.is_as(event):
            return None
        following = None
        match ending:
            case "":
                self.sent(event, kept=self.keeps(by_relay))
                following = self.claim(event.lane) if and_next and event.lane else None
            case "unknown":
                self.rest(event, WAITING, due=self.now + 1)
            case "hopeless":
                self.rest(event, DEAD, errors=event.errors + 1)
            case _ if self.is_last(event):
                ending = "hopeless"
                self.rest(event, DEAD, errors=event.errors + 1)
            case "failing":
                self.rest(event, WAITING, due=self.now + 1, errors=event.errors + 1)
        self.tell(OUTCOMES[ending], event, by_relay=by_relay)
        return following

    def sent(self, event: Event, *, kept: bool) -> None:
        if kept:
            self.rest(event, EventStatus.SENT, is_sent=True)
        else:
            del self.events[event.id]

    def keeps(self, by_relay: bool) -> bool:
        return self.habits.keeps_relayed if by_relay else self.habits.keeps_hooked

    def is_last(self, event: Event) -> bool:
        most = self.habits.most_attempts
        return most is not None and event.errors + 1 >= most

    def rest(self, event: Event, to: EventStatus, **changes: Any) -> Event:
        assert to in TRANSITIONS[event.status], f"{event.status} can't become {to}"
        moment = {} if "due" not in changes else {"moment": None}
        written = {"status": to, "since": self.now, "lease": None, **moment, **changes}
        self.events[event.id] = moved = replace(self.events[event.id], **written)
        return moved

    def tell(self, what: str, event: Event, *, by_relay: bool) -> None:
        self.doom.come_by("settled")
        if what:
            self.signals.append((f"{what}{' by relay' if by_relay else ''}", event.id))

    # What people decide; `seen` is the event as they have seen it

    def replay(self, seen: Event) -> bool:
        return self._decide(seen) and bool(self.rest(seen, WAITING, due=self.now, errors=0))

    def skip(self, seen: Event) -> bool:
        return self._decide(seen) and bool(self.rest(seen, EventStatus.SKIPPED))

    def discard(self, seen: Event) -> bool:
        return self._decide(seen) and bool(self.events.pop(seen.id))

    def _decide(self, seen: Event) -> bool:
        if seen.status != DEAD:
            raise Refused("IllegalTransition")
        return self.is_as(seen)

    def clean(self, age: int) -> None:
        for event in self.those(EventStatus.SENT):
            if event.since <= self.now - age:
                del self.events[event.id]


OUTCOMES = {
    "": "published",
    "failing": "failed",
    "hopeless": "permanently failed",
    "unknown": "",
}
