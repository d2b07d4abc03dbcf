"""Scenarios of the outbox: what one says about its events, and what always has to hold."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jaiminho_celery import barriers, batches, execution, hooks, kicks, registry, strategies, sweep
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.models import Event
from jaiminho_celery.registry import Call, OutboxFunction
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from jaiminho_celery.states import EventStatus
from parviraptor_celery.drains import Budget
from tests.faults.stage import gate, without_gates
from tests.faults.world import LONG_AGO, World, let_expire, who

RUNNING_TWICE = (
    "SELECT lane FROM jaiminho_celery_event WHERE status = 'PUBLISHING' AND lane IS NOT NULL"
    " GROUP BY lane HAVING COUNT(*) > 1"
)
FOREVER = 1e9
PAUSE = timedelta(hours=1)
ITEM = re.compile(r'"([a-z]\d)"')


class Streams(World):
    """Events of three functions: published on commit, in order by key, and by the batch.

    An item is a letter and a digit; the letter is its key.
    """

    is_swept = False
    """Whether a sweep may be needed to bring everything to rest."""

    hooks_die = False
    """Whether no hook runs, as in a process that dies after the commit."""

    on_commit: Callable[[str], None]
    in_order: Callable[[str], None]

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        for module in ("backoff", "execution"):  # a pause that is diced could be none
            patch.setattr(f"jaiminho_celery.{module}.full_jitter", lambda *_, **__: PAUSE)
        patch.setattr(registry, "_functions", dict(registry._functions))
        self.on_commit = save_to_outbox(using=self.using, name="tests.schedules.hook")(self._call)
        self.in_order = save_to_outbox_stream(
            "schedules",
            PublishStrategyType.KEEP_ORDER,
            using=self.using,
            key=lambda item: item[0],
            name="tests.schedules.ordered",
        )(functools.partial(self._call))
        self.by_the_batch = OutboxFunction(
            self._call_alone,
            "tests.schedules.batch",
            strategy=PublishStrategyType.PUBLISH_ON_COMMIT.value,
            using=self.using,
            publish_many=self._call_many,
        )
        registry.register(self.by_the_batch)
        self._control(patch)

    def given(self) -> None:
        self.hooks_die = False
        Event.rows(self.using)._raw_delete(self.using)
        kicks._asked_for.clear()
        self.writes = 0

    @property
    def rows(self) -> Any:
        return Event.rows(self.using).order_by("id")

    def write(self, function: Callable[[str], Any], item: str) -> None:
        """Write an event in a transaction of its own."""
        with self.committing(item, self.lane_of(item)):
            function(item)

    def lane_of(self, item: str) -> str:
        """Return the lane, as the history calls it."""
        return item[0]

    def relay_expired(self) -> None:
        """Do what a relay does whose clock says that every lease has run out."""
        gate("its clock is ahead")
        with without_gates():
            for event in self.rows.filter(status=EventStatus.PUBLISHING):
                let_expire(event)
        self.relay()

    def relay(self) -> None:
        sweep.relay_here(self.using, Budget.endless())

    def call(self, item: str) -> None:
        """What a function does when it is called; a scenario may let it raise."""

    def may_begin(self, run: str) -> None:
        """Called when a run begins; a scenario may see whether it should."""

    def freeze(self, item: str) -> None:
        """Write an event that goes by the batch, as OutboxCelery does."""
        strategies.write(self.by_the_batch, (item,), {})

    def look(self, label: str) -> list[str]:
        self.writes += self.is_written_by(label)
        if self.is_written_by(label) and self.select(RUNNING_TWICE):
            return [f"two events of one lane are PUBLISHING: {self.statuses()}"]
        return self.problems

    def statuses(self) -> dict[str, str]:
        """Return the status of each event by its item."""
        found = self.rows.values_list("body", "status")
        return {ITEM.findall(body)[0]: str(status) for body, status in found}

    def at_rest(self) -> list[str]:
        """Handle what was sent, let back-offs be over, and see that nothing was left behind."""
        self.handle_all()
        self._let_be_due()
        if self.is_swept:
            self._relay_all()
        left = {item: status for item, status in self.statuses().items() if self.is_left(status)}
        found = [f"left behind: {left} of {self.statuses()}"] if left else []
        return found + self.out_of_order()

    def is_left(self, status: str) -> bool:
        return status in (EventStatus.WAITING, EventStatus.PUBLISHING, EventStatus.DEAD)

    def out_of_order(self) -> list[str]:
        """Return what was published out of the order of ids, in the lanes that keep it."""
        ordered = self.rows.filter(lane__isnull=False).values_list("body", flat=True)
        items = [ITEM.findall(body)[0] for body in ordered]
        began = [item for _, item in self.runs() if item in items]
        firsts = list(dict.fromkeys(began))
        return [
            f"out of the order of ids: {ran} instead of {wanted}"
            for lane in {item[0] for item in firsts}
            if (ran := [item for item in firsts if item[0] == lane])
            != (wanted := [item for item in items if item[0] == lane and item in ran])
        ]

    def _let_be_due(self) -> None:
        while self.later:
            self._forget_back_offs()
            self.kicks[:], self.later[:] = self.later, []
            self.handle_all()

    def _relay_all(self) -> None:
        self._forget_back_offs()
        self.relay_expired()
        self.handle_all()
        self._forget_back_offs()
        self.relay()

    def _forget_back_offs(self) -> None:
        self.rows.filter(status=EventStatus.WAITING).update(run_after=LONG_AGO)

    # What is under control

    def _control(self, patch: pytest.MonkeyPatch) -> None:
        self._local = threading.local()
        patch.setattr(execution, "_publish", self._noting_the_run(execution._publish))
        patch.setattr(batches, "_publish", self._noting_the_batch(batches._publish))
        patch.setattr(Event, "rescue", self._noting_the_stale(Event.rescue))
        patch.setattr(hooks, "_publish_after_commit", self._gated(hooks._publish_after_commit))
        # In this thread: a thread of its own would be an actor that nobody knows.
        patch.setattr(hooks, "_may_wait", lambda _: False)
        # Instead of half a second by the clock: until somebody has written.
        patch.setattr(barriers, "PATIENCE_SECONDS", FOREVER)
        patch.setattr(barriers, "_wait", self._wait_for_others)

    def _gated(self, publish: Any) -> Any:
        def gated(leased: Any) -> None:
            gate("hook")
            if not self.hooks_die:
                publish(leased)

        return gated

    def _wait_for_others(self) -> None:
        seen: list[int] = []

        def others_have_written() -> bool:
            # Asked first when the step that led here is counted.
            seen[:] = seen or [self.writes]
            return self.writes > seen[0]

        gate("waits for a writer", others_have_written)

    def _call(self, item: str) -> None:
        self.note("began", item, self.lane_of(item), self._run())
        gate("body")
        self._end(item, self._run())

    def _end(self, item: str, run: str) -> None:
        try:
            self.call(item)
        except Exception:
            self.note("broke", item, self.lane_of(item), run)
            raise
        self.note("ended", item, self.lane_of(item), run)

    def _call_alone(self, item: str) -> None:
        raise AssertionError("such events go by the batch")

    def _call_many(self, calls: list[Call]) -> list[Exception | None]:
        items, runs = [args[0] for args, _ in calls], self._local.runs
        found = [(item, f"{who()} {run}") for item, run in zip(items, runs, strict=True)]
        for item, run in found:
            self.note("began", item, "", run)
        gate("body")
        for item, run in found:
            self._end(item, run)
        return [None] * len(calls)

    def _run(self) -> str:
        return f"{who()} {self._local.runs[0]}"

    def _noting_the_run(self, publish: Any) -> Any:
        def noting(attempt: Any) -> None:
            self._local.runs = [run_of(attempt.row)]
            self.may_begin(self._local.runs[0])
            publish(attempt)

        return noting

    def _noting_the_batch(self, publish: Any) -> Any:
        def noting(publish_many: Any, opened_runs: Any) -> None:
            self._local.runs = [run_of(attempt.row) for attempt, _ in opened_runs]
            publish(publish_many, opened_runs)

        return noting

    def _noting_the_stale(self, rescue: Any) -> Any:
        def noting(event: Any) -> bool:
            done = bool(rescue(event))
            if done:
                self.stale.add(f"{event.pk}.{event.attempt}")
            return done

        return noting


def run_of(event: Any) -> str:
    """Return a name for this one run of an event: nobody else has its attempt."""
    return f"{event.pk}.{event.attempt}"
