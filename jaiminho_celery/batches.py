"""Publishes and settles many leased events at once: ``execution`` for whole batches.

Only functions that say how (``publish_many``) are published so, Celery messages that is. A crash
repeats at most one batch that was published and not settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from parviraptor_celery.clock import now
from parviraptor_celery.database import REFUSALS, alone, in_transaction
from parviraptor_celery.leases import heartbeat
from parviraptor_celery.settling import settle_alone

from .conf import settings
from .execution import (
    Run,
    is_kept,
    opened,
    outcome_of,
    pause_of_all,
    postponement,
)
from .models import UNBLEMISHED, Event
from .outcomes import Outcome, Postponed, Published
from .registry import Call, PublishMany
from .states import EventStatus


class BatchRun:
    """An attempt to publish a batch: one ``Run`` for each event, settled together."""

    pauses_pool = False
    is_settled = False

    def __init__(self, runs: list[Run], using: str) -> None:
        self.runs, self.using, self.size = runs, using, len(runs)

    def settle(self) -> None:
        """Write the outcomes: those that are alike with one statement, the others one by one."""
        self._settle_published(self._with_outcome(Published))
        self._settle_postponed(self._with_outcome(Postponed))
        self._settle_one_by_one([run for run in self.runs if not run.is_settled])
        self.is_settled = True

    def announce(self) -> None:
        """Tell about every event, outside of the transaction; about a common error once."""
        reported = set[int]()
        for run in self.runs:
            run.announce(report=id(run.error) not in reported)
            reported.add(id(run.error))

    def _settle_one_by_one(self, runs: list[Run]) -> None:
        try:
            if len(runs) > 1:
                in_transaction(
                    self.using,
                    lambda: [run.settle() for run in runs],
                    again=lambda: [run.settle_again() for run in runs],
                )
                return
        except REFUSALS:
            pass
        for run in runs:
            settle_alone(run, self.using)

    def _with_outcome(self, kind: type[Outcome]) -> list[Run]:
        return [run for run in self.runs if isinstance(run.outcome, kind)]

    def _settle_published(self, runs: list[Run]) -> None:
        sent = {"status": EventStatus.SENT, "sent_at": now(), **UNBLEMISHED}
        self._settle_alike(runs, sent if runs and is_kept(runs[0]) else None)

    def _settle_postponed(self, runs: list[Run]) -> None:
        if not runs:
            return
        pause, error = pause_of_all(), cast(Postponed, runs[0].outcome).error
        self._settle_alike(runs, {"status": EventStatus.WAITING, **postponement(error, pause)})
        for run in runs:
            run.pause = pause

    def _settle_alike(self, runs: list[Run], columns: Mapping[str, Any] | None) -> None:
        """Settle ``runs`` together, or none of them if one was no longer ours."""
        if len(runs) < 2:
            return
        events = [run.row for run in runs]
        together = alone(
            self.using,
            lambda: Event.settle_together(events, self.using, columns),
            again=lambda: Event.settle_together_again(events, self.using, columns),
        )
        for run in runs:
            run.is_settled = run.is_recorded = together


def run(runs: list[Run], using: str) -> BatchRun:
    """Publish leased events, renewing their leases; what goes wrong becomes their outcomes.

    Their names are ones that ``registry.goes_by_the_batch``.
    """
    attempt, events = BatchRun(runs, using), [run.row for run in runs]
    with heartbeat.keep(lambda: Event.keep_leases(events, using), settings.LEASE_SECONDS):
        for publish_many, opened_runs in _by_publisher(runs).items():
            _publish(publish_many, opened_runs)
    return attempt


def _by_publisher(runs: list[Run]) -> dict[PublishMany, list[tuple[Run, Call]]]:
    """Open every event; return those that could be, by who publishes them."""
    found: dict[PublishMany, list[tuple[Run, Call]]] = {}
    for attempt in runs:
        if (content := opened(attempt)) is not None:
            function, call = content
            publish_many = cast(PublishMany, function.publish_many)
            found.setdefault(publish_many, []).append((attempt, call))
    return found


def _publish(publish_many: PublishMany, opened_runs: list[tuple[Run, Call]]) -> None:
    try:
        errors = publish_many([call for _, call in opened_runs])
    except Exception as failure:
        errors = [failure] * len(opened_runs)
    for (attempt, _), error in zip(opened_runs, errors, strict=True):
        attempt.outcome = outcome_of(error)
