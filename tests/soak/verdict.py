"""Compares what the database knows at the end with what the ledger tells."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.db.models import Sum

from jaiminho_celery.models import Event
from tests.faults import causes
from tests.faults.history import History
from tests.faults.ledger import Entry
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
LOSE_ONE_MESSAGE = {"killed", "held", "broker swallowed packets", "broker restarted"}
"""Redis only: kombu takes a message off the list before it notes that it has it."""


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
            *(f"lost: {item}" for item in sorted(history.lost()) if not self._may_be_lost(item)),
            *self._too_many_lost(),
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

    def messages_lost(self) -> list[str]:
        return [item for item in self.history.lost() if item.startswith("message-")]

    def at_the_emptied_broker(self) -> list[str]:
        """Return the lost messages that may have been in the broker when it was emptied."""
        emptied = [entry.at for entry in self.history.entries if entry.note == "broker emptied"]
        last = max(emptied, default=-1.0)
        return [m for m in self.messages_lost() if self.history.moment("intended", m) <= last]

    def losses_allowed(self) -> int:
        """Return how many messages Redis may lose beside those."""
        if self.broker_is_durable:
            return 0
        faults = [e for e in self.history.entries if e.what in ("fault", "struck")]
        return sum(entry.note in LOSE_ONE_MESSAGE for entry in faults)

    def _may_be_lost(self, item: str) -> bool:
        return item.startswith("message-") and not self.broker_is_durable

    def _too_many_lost(self) -> list[str]:
        lost = len(self.messages_lost()) - len(self.at_the_emptied_broker())
        allowed = self.losses_allowed()
        return [f"{lost} messages lost, {allowed} allowed"] if lost > allowed else []

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
            "messages lost at the emptied broker": len(self.at_the_emptied_broker()),
            "messages that Redis may lose besides": self.losses_allowed(),
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
