"""Rows that somebody changed in the table, column by column: no other thing runs, nothing stops.

Every column of a row takes every value that its table lets through (`tests/faults/tampering.py`),
each in a row of its own. All of them wait together with rows that nobody touched.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import router, transaction
from django.db.models import F
from django.utils import timezone

from jaiminho_celery import cleanup as event_cleanup
from jaiminho_celery import sweep as relay_sweep
from jaiminho_celery.models import Event
from parviraptor_celery import broker, cleanup, dispatch, monitoring, sweep
from parviraptor_celery.drains import Budget
from tests.faults import IS_WIDE
from tests.faults.canaries import CONTROLS, listening
from tests.faults.tampering import SIGNED, Tampering, tampered
from tests.testapp import outbox as functions
from tests.testapp.models import FreeJob, LaneJob

LONG_AGO = timezone.now() - timedelta(days=1)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, one_database: str) -> None:
    """These tests are the workers themselves, and know one database."""
    monkeypatch.setattr(broker, "kick", lambda *_, **__: True)
    functions.forget()


class TestEvents:
    """Each shop is a lane, and each call tells its shop and a number of its own."""

    NUMBERS = itertools.count()

    def waiting_in_order(self, count: int) -> list[int]:
        return self._written(functions.per_shop, count)

    def waiting_without_order(self, count: int) -> list[int]:
        return self._written(functions.bare, count, status="WAITING", lease_until=None)

    def left_by_a_hook(self, count: int) -> list[int]:
        return self._written(functions.bare, count, lease_until=LONG_AGO)

    def left_by_the_relay(self, count: int) -> list[int]:
        leased = {"status": "PUBLISHING", "lease_until": LONG_AGO, "running_lane": F("lane")}
        return self._written(functions.per_shop, count, **leased, attempt=1)

    def _written(self, function: Any, count: int, **columns: Any) -> list[int]:
        with transaction.atomic(using=router.db_for_write(Event)):
            for number in itertools.islice(self.NUMBERS, count):
                function(f"shop {number}", number)
        written = list(Event.objects.order_by("-id").values_list("pk", flat=True)[:count])
        columns["run_after"] = LONG_AGO
        Event.objects.filter(pk__in=written).update(**columns)
        return sorted(written)

    @pytest.mark.parametrize(
        "make",
        [waiting_in_order, waiting_without_order, left_by_a_hook]
        + ([left_by_the_relay] if IS_WIDE else []),
        ids=lambda make: make.__name__,
    )
    def test_that_were_changed_run_nothing_else_and_stop_no_other(
        self, using: str, make: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        [first] = make(self, 1)
        changed = tampered(using, Event, lambda count: make(self, count))
        [last] = make(self, 1)
        assert {what.column for what in changed.values()} >= SIGNED - {"uuid"}
        with listening() as lines:
            relay_sweep.sweep_all(Budget.endless(), force=True)
            relay_sweep.relay_here(using, Budget.endless())
            event_cleanup.clean_all()
        sent = set(Event.rows(using).filter(status="SENT").values_list("pk", flat=True))
        assert {first, last} <= sent
        assert all(list(args) == [f"shop {args[1]}", args[1]] for _, args, _ in functions.calls)
        ran = [change for pk, change in changed.items() if pk in sent and change.column in SIGNED]
        assert [change for change in ran if not is_unchanged(change)] == []
        assert not any(CONTROLS.search(line) for line in lines)


def is_unchanged(change: Tampering) -> bool:
    """Return whether the value was the same before."""
    return change.value in ("", "keep-order", "publish-on-commit")


class TestJobs:
    SHOPS = itertools.count()

    def waiting(self, queue: Any, using: str, count: int) -> list[int]:
        lanes = queue is LaneJob
        shops = itertools.islice(self.SHOPS, count)
        jobs = [queue(shop=f"shop {shop}") if lanes else queue() for shop in shops]
        queue.enqueue_many(jobs, using=using)
        written = queue.rows(using).order_by("-id").values_list("pk", flat=True)[:count]
        return sorted(written)

    def deferred(self, queue: Any, using: str, count: int) -> list[int]:
        return self._moved(queue, using, count, status="DEFERRED")

    def failed(self, queue: Any, using: str, count: int) -> list[int]:
        return self._moved(queue, using, count, status="FAILED")

    def running(self, queue: Any, using: str, count: int) -> list[int]:
        """Jobs whose worker died."""
        leased = {"status": "PROCESSING", "attempt": 1, "begun_at": LONG_AGO}
        return self._moved(
            queue, using, count, **leased, running_lane=F("lane"), lease_until=LONG_AGO
        )

    def _moved(self, queue: Any, using: str, count: int, **columns: Any) -> list[int]:
        written = self.waiting(queue, using, count)
        queue.rows(using).filter(pk__in=written).update(**columns)
        return written

    @pytest.mark.parametrize("queue", [LaneJob, FreeJob])
    @pytest.mark.parametrize(
        "make",
        [waiting, running, *([deferred, failed] if IS_WIDE else [])],
        ids=lambda make: make.__name__,
    )
    def test_that_were_changed_stop_no_other(
        self, using: str, queue: Any, make: Callable[..., list[int]]
    ) -> None:
        [first] = self.waiting(queue, using, 1)
        own = {field.name for field in queue.own_fields()}
        changed = tampered(
            using, queue, lambda count: make(self, queue, using, count), leave_out=own
        )
        [last] = self.waiting(queue, using, 1)
        with listening() as lines:
            monitoring.report()
            sweep._sweep(queue, using)
            self.work_off(queue, using)
            cleanup.clean_all()
            monitoring.report()
        done = queue.rows(using).filter(pk__in=[first, last], status="PROCESSED")
        assert done.count() == 2
        assert len(changed) > 40
        assert not any(CONTROLS.search(line) for line in lines)

    def work_off(self, queue: Any, using: str) -> None:
        if queue is FreeJob:
            dispatch.run_pool(queue, using, Budget.endless())
            return
        lanes = queue.rows(using).order_by().values_list("lane", flat=True).distinct()
        known = sorted(lane for lane in lanes if lane)
        dispatch.run_lanes(queue, using, known, Budget.endless())
