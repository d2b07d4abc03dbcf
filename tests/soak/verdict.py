"""Compares what the database knows at the end with what the ledger tells.

The rules, beside those of tests/faults/history.py and tests/faults/causes.py:

- Every item that has a business row ran to its end; no other ever began.
- A Celery message may be missing only if the broker was emptied while it held it. On Redis a few
  more may be: a worker takes a message off the list before it notes there that it has it, and so
  loses it if it is killed, or cut off, in between. That is how kombu works: one message for each
  worker that a fault hits. On RabbitMQ none may be missing, whatever was killed.
- In the end every job is PROCESSED and every event is sent.
- The bodies of the atomic queue added one per committed job, however often they ran.
- Each death of a worker that a job was charged with needs a process that was struck.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.faults import causes
from tests.faults.history import History
from tests.faults.ledger import Entry
from tests.soak.bodies import REDELIVERED

WORKERS = 2

BODIES = ("lane", "free", "new", "announce", "price")
"""What runs in a process that the ledger names, and may repeat only because of a strike on it.

Bodies of the atomic queue are undone when they repeat: for them the sum has to be exact.
"""

MESSAGE, ATOMIC = "message", "atomic"

BATCH = 500
"""Most messages of an unsettled batch, as docs/guarantees.md has it."""

BREAK_A_BATCH = {
    "killed",
    "held",
    "cut off",
    "broker restarted",
    "broker emptied",
    "broker swallowed packets",
}

MESSAGES_ON_THE_WAY = {
    "worker killed": 1,
    "broker restarted": WORKERS,
    "broker emptied": WORKERS,
    "broker swallowed packets": WORKERS,
}
"""How many messages each fault may lose on Redis."""


@dataclass(frozen=True)
class Evidence:
    """Business rows, and what is left in the library's tables; items are named "kind-…"."""

    committed: frozenset[str]
    """Items whose business row is there: it was written in the same transaction."""

    jobs: dict[str, str]
    """The status of each job, by its item."""

    events: list[str] = field(default_factory=list)
    """Events that are not sent, in words."""

    counted: int = 0
    """What the bodies of the atomic queue added up to."""

    worker_deaths: int = 0


class Verdict:
    """What became of a run; ``lease`` is in seconds."""

    def __init__(
        self, entries: list[Entry], evidence: Evidence, lease: float, broker_is_durable: bool
    ) -> None:
        self.evidence, self.broker_is_durable = evidence, broker_is_durable
        # A lease is renewed each third of it: whoever is held for the other two may lose it.
        self.history = History(entries, evidence.committed, lease=lease * 2 / 3)
        self.strikes = causes.strikes(entries)

    def problems(self) -> list[str]:
        """Return every broken promise, in words."""
        history = self.history
        return [
            *self._lost(),
            *(f"ran though it was never committed: {item}" for item in sorted(history.ghosts())),
            *history.disorder(),
            *causes.unexplained(history, BODIES),
            *causes.unexplained_messages(history, MESSAGE, BATCH, BREAK_A_BATCH, REDELIVERED),
            *self._not_at_rest(),
            *self._miscounted(),
            *self._deaths(),
        ]

    def lost_on_the_way(self) -> set[str]:
        """Return the messages that are missing though the broker was not emptied of them."""
        dropped = {entry.item for entry in self.history.entries if entry.what == "dropped"}
        return {item for item in self.history.lost() if causes.kind(item) == MESSAGE} - dropped

    def losses_allowed(self) -> int:
        """Return how many of these Redis allows."""
        if self.broker_is_durable:
            return 0
        faults = (entry.note for entry in self.history.entries if entry.what == "fault")
        return sum(MESSAGES_ON_THE_WAY.get(fault, 0) for fault in faults)

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Return how often things happened, by the kind of item."""
        history = self.history
        kinds: dict[str, Counter[str]] = {}
        for entry in history.entries:
            if entry.what in ("intended", "ended", "broke"):
                kinds.setdefault(causes.kind(entry.item), Counter())[entry.what] += 1
        for item in history.committed:
            kinds[causes.kind(item)]["committed"] += 1
        for item, times in history.repeated().items():
            kinds[causes.kind(item)]["repeated"] += times
        for item in history.lost():
            kinds[causes.kind(item)]["lost"] += 1
        return {kind: dict(kinds[kind]) for kind in sorted(kinds)}

    def faults(self) -> dict[str, int]:
        """Return how often each kind of fault was injected."""
        return dict(Counter(e.note for e in self.history.entries if e.what == "fault"))

    def numbers(self) -> dict[str, float]:
        """Return other counts for the report."""
        dropped = sum(entry.what == "dropped" for entry in self.history.entries)
        return {
            "strikes on processes": len(self.strikes),
            "worker deaths that jobs were charged with": self.evidence.worker_deaths,
            "messages that an emptied broker held": dropped,
            "messages lost on the way from Redis": len(self.lost_on_the_way()),
            "of these allowed": self.losses_allowed(),
        }

    def _lost(self) -> list[str]:
        bodies = {item for item in self.history.lost() if causes.kind(item) != MESSAGE}
        found = [f"lost: {item}" for item in sorted(bodies)]
        messages, allowed = self.lost_on_the_way(), self.losses_allowed()
        if len(messages) > allowed:
            found.append(f"{len(messages)} messages lost, {allowed} allowed: {sorted(messages)}")
        return found

    def _not_at_rest(self) -> list[str]:
        jobs = self.evidence.jobs.items()
        return [
            *(f"{item} is {status}" for item, status in sorted(jobs) if status != "PROCESSED"),
            *(f"left in the outbox: {event}" for event in self.evidence.events),
        ]

    def _miscounted(self) -> list[str]:
        wanted = sum(causes.kind(item) == ATOMIC for item in self.evidence.committed)
        counted = self.evidence.counted
        return [] if counted == wanted else [f"the atomic queue counted {counted}, not {wanted}"]

    def _deaths(self) -> list[str]:
        deaths, strikes = self.evidence.worker_deaths, len(self.strikes)
        return [f"{deaths} worker deaths, {strikes} strikes"] if deaths > strikes else []
