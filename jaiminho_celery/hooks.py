"""What the process that wrote an event does right after the commit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction

from parviraptor_celery.database import alone
from parviraptor_celery.settling import settle_alone

from . import batches, execution, holding, kicks, registry
from .conf import settings
from .execution import Run
from .models import Event
from .outcomes import Published
from .publisher import BackgroundPublisher
from .registry import Call, OutboxFunction


@dataclass(frozen=True)
class Leased:
    """An event that this process has inserted and leased to itself."""

    event: Event
    at: float
    """Before its lease began, by the monotonic clock (seconds)."""

    receiver: Any = None
    """What a method was called on."""

    content: tuple[OutboxFunction, Call] | None = None
    """The function and its arguments, where the row need not be read for them."""

    def is_still_ours(self) -> bool:
        """Return whether the event may be published here.

        After a long transaction, or slow hooks before this one, the lease may have run out and
        the relay may have the event: then this process first has to win it again.
        """
        is_late = time.monotonic() - self.at > settings.LEASE_SECONDS / 2
        return not is_late or alone(self.event.alias, self.event.renew)


def on_commit(leased: Leased) -> None:
    """Publish an event once its transaction has committed.

    One hook for each event: Django drops it with the savepoint that is rolled back.
    """

    def publish() -> None:
        _publish_after_commit(leased)

    transaction.on_commit(publish, using=leased.event.alias, robust=True)


def publish_together(waiting: list[Leased]) -> None:
    """Publish events of one database as a batch, and settle them."""
    runs = [
        Run(leased.event, Published(), by_relay=False, payload={}, content=leased.content)
        for leased in waiting
        if leased.is_still_ours()
    ]
    if runs:
        attempt = batches.run(runs, runs[0].row.alias)
        attempt.settle()
        attempt.announce()
        _come_back_for(attempt.runs)


def flush(timeout: float = 5.0) -> bool:
    """Wait until what was handed to the background is on the wire, or put back for the relay.

    Returns False if it was not after ``timeout`` seconds. Called by itself at the end of a
    process; what is left even then, the relay takes when its lease has run out.
    """
    return background.flush(timeout)


def _publish_after_commit(leased: Leased) -> None:
    if holding.is_held():
        return  # a test works the row off when it says so
    if not registry.goes_by_the_batch(leased.event.name):
        _publish_alone(leased)
    elif _may_wait(leased.event.alias):
        background.add(leased)
    else:
        publish_together([leased])


def _publish_alone(leased: Leased) -> None:
    if leased.is_still_ours():
        run = execution.run(leased.event, by_relay=False, receiver=leased.receiver)
        settle_alone(run, leased.event.alias)
        run.announce()
        _come_back_for([run])


def _may_wait(using: str) -> bool:
    """Return whether messages may be published in the background.

    Not where a second connection would stand in the way of the first (SQLite has one writer), nor
    where it wouldn't see the row: a test that runs the hooks inside its transaction.
    """
    connection = connections[using]
    has_row_locks = connection.features.has_select_for_update
    return settings.PUBLISH_IN_BACKGROUND and has_row_locks and not connection.in_atomic_block


def _come_back_for(runs: list[Run]) -> None:
    """Let the relay come when the first of those that failed is due."""
    pauses = [run.pause for run in runs if run.pause is not None]
    if pauses:
        kicks.later(runs[0].row.alias, min(pauses))


background = BackgroundPublisher(publish_together)
