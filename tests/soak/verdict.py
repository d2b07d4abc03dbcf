"""Compares what the database knows at the end with what the ledger tells."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.db.models import Sum

from jaiminho_celery.models import Event
from tests.faults import causes
from tests.faults.history import History
from tests.faults.ledger import Entry
from tests.soak.fleet import WORKERS
from tests.soak.project import evidence, models

QUEUES: dict[str, Any] = {
    "lane": models.LaneJob,
    "free": models.FreeJob,
    "atomic": models.AtomicJob,
    "new": models.NewJob,
}
BODIES = ("lane", "free", "new", "announce", "price")
"""What runs in a process that the ledger names, and may repeat only because of a strike on it.

Bodies of the atomic queue are undone when they repeat: for them the sum has to be exact.
"""
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
"""Redis only: a worker takes a message off the list before it notes there that it has it, and so
loses one if it is killed, or cut off, in between. That is how kombu works, not the outbox."""


class Verdict:
    """All that was found; ``problems()`` is empty if every promise was kept."""

    def __init__(self, entries: list[Entry], lease: float, broker_is_durable: bool) -> None:
        facts = models.Fact.objects.values_list("item", flat=True)
        # A lease is renewed each third of it: whoever is held for the other two may lose it.
        self.history = History(entries, set(facts), lease=lease * 2 / 3)
        self.broker_is_durable = broker_is_durable

    def problems(self) -> list[str]:
        """Return every broken promise, in words."""
        history = self.history
        return [
            *self._lost(),
            *(f"ran though it was never committed: {item}" for item in sorted(history.ghosts())),
            *history.disorder(),
            *causes.unexplained(history, BODIES),
            *causes.unexplained_messages(
                history, "message", BATCH, BREAK_A_BATCH, evidence.REDELIVERED
            ),
            *self._rows(),
            *self._events(),
            *self._sum(),
            *self._deaths(),
        ]

    def lost_on_the_way(self) -> set[str]:
        """Return the messages that are lost though the broker was not emptied of them."""
        dropped = {entry.item for entry in self.history.entries if entry.what == "dropped"}
        lost = {item for item in self.history.lost() if item.startswith("message-")}
        return lost - dropped

    def losses_allowed(self) -> int:
        """Return how many of these Redis allows."""
        if self.broker_is_durable:
            return 0
        return sum(MESSAGES_ON_THE_WAY.get(entry.note, 0) for entry in self.history.entries)

    def _lost(self) -> list[str]:
        jobs = {item for item in self.history.lost() if not item.startswith("message-")}
        found = [f"lost: {item}" for item in sorted(jobs)]
        messages, allowed = self.lost_on_the_way(), self.losses_allowed()
        if len(messages) > allowed:
            found.append(f"{len(messages)} messages lost, {allowed} allowed: {sorted(messages)}")
        return found

    def _rows(self) -> list[str]:
        found = []
        for kind, queue in QUEUES.items():
            rows = dict(queue.objects.values_list("item", "status"))
            wanted = {item for item in self.history.committed if item.startswith(f"{kind}-")}
            found += [f"row missing: {item}" for item in sorted(wanted - set(rows))]
            found += [f"row never committed: {item}" for item in sorted(set(rows) - wanted)]
            found += [
                f"{item} is {status}" for item, status in rows.items() if status != "PROCESSED"
            ]
        return found

    def _events(self) -> list[str]:
        left = Event.objects.exclude(status=Event.Status.SENT)
        return [f"event {row.pk} ({row.name}) is {row.status}: {row.error_message}" for row in left]

    def _sum(self) -> list[str]:
        value = models.Counter.objects.aggregate(sum=Sum("value"))["sum"]
        wanted = sum(item.startswith("atomic-") for item in self.history.committed)
        return [] if value == wanted else [f"the atomic queue counted {value}, not {wanted}"]

    def _deaths(self) -> list[str]:
        deaths = self.deaths()
        strikes = len(causes.strikes(self.history.entries))
        return [f"{deaths} worker deaths, {strikes} strikes"] if deaths > strikes else []

    def numbers(self) -> dict[str, float]:
        """Return counts for the report."""
        return {
            "strikes on processes": len(causes.strikes(self.history.entries)),
            "messages lost on the way from Redis": len(self.lost_on_the_way()),
            "of these allowed": self.losses_allowed(),
        }

    def deaths(self) -> int:
        sums = (q.objects.aggregate(sum=Sum("worker_deaths"))["sum"] for q in QUEUES.values())
        return sum(value or 0 for value in sums)

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Return, for each kind of item, how many were committed, rolled back and repeated."""
        kinds: dict[str, Counter[str]] = {}
        for item in self.history.committed:
            kinds.setdefault(item.partition("-")[0], Counter())["committed"] += 1
        for entry in self.history.entries:
            kind = kinds.get(entry.item.partition("-")[0])
            if kind is not None and entry.what in ("intended", "ended", "broke"):
                kind[entry.what] += 1
        for item, times in self.history.repeated().items():
            kinds.setdefault(item.partition("-")[0], Counter())["repeated"] += times
        for item in self.history.lost():
            kinds.setdefault(item.partition("-")[0], Counter())["lost"] += 1
        return {kind: dict(kinds[kind]) for kind in sorted(kinds)}

    def faults(self) -> dict[str, int]:
        return dict(Counter(e.note for e in self.history.entries if e.what == "fault"))


def open_work() -> int:
    """Return how many rows are not at rest."""
    jobs = sum(
        queue.objects.filter(status__in=("NEW", "PROCESSING", "DEFERRED")).count()
        for queue in QUEUES.values()
    )
    return jobs + Event.objects.filter(status__in=("WAITING", "PUBLISHING")).count()
