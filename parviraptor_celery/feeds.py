"""Feeds over leased rows: a lane in order, or a pool by the batch. Both apps derive from them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError
from django.db.models import F

from .clock import from_now, now
from .database import alone, in_transaction
from .leases import worker_identity

logger = logging.getLogger("parviraptor_celery")

MOST_REFUSALS = 20

REFUSALS = (DataError, IntegrityError, ValidationError, ValueError, TypeError, OverflowError)
"""What a value raises that can't be stored."""


class LaneFeed:
    """One lane: the head runs, then its successor, never two at a time."""

    def __init__(self, rows: Any, lane: str) -> None:
        self.rows, self.using, self.lane = rows, rows.db, lane

    def first(self) -> Any:
        refusals = 0
        while refusals < MOST_REFUSALS:
            row = alone(self.using, self.candidate)
            if row is None or row.lane_is_running:
                return None  # whoever runs the lane looks again when done
            if row.held_by is not None:
                if not self.clear_obstacle(row):
                    return None
            elif self._claim_alone(row):
                return row
            else:
                refusals += 1
        logger.warning(
            "%s: lane %s could not be claimed, left to the sweep",
            self.rows.model._meta.label,
            self.lane,
        )
        return None

    def settle(self, run: Any, *, claim_next: bool) -> Any:
        if run.is_settled:
            return None
        successor = self._successor_of(run) if claim_next else None
        if successor is not None:
            try:
                return in_transaction(self.using, self._hand_off(run, successor))
            except REFUSALS:
                pass  # of the outcome, or of the claim because the lane was taken in between
        settle_alone(run, self.using)
        return None

    def close(self) -> None:
        """A lane is claimed one row at a time: nothing is left over."""

    def candidate(self) -> Any:
        """Return the row that is next, annotated by ``as_candidates()``, or None."""
        raise NotImplementedError

    def candidate_at_once(self) -> Any:
        """Return ``candidate()``, or None if that would mean to wait for somebody.

        Asked between a run and its settlement, where a crash repeats the run.
        """
        return self.candidate()

    def clear_obstacle(self, row: Any) -> bool:
        """Deal with the earlier row that holds the candidate; False leaves the lane alone."""
        return False

    def _claim_alone(self, row: Any) -> bool:
        try:
            return alone(self.using, _repeatable_claim(row))
        except IntegrityError:
            return False  # another row of the lane was claimed between our look and our write

    def _successor_of(self, run: Any) -> Any:
        """Return the row that may be claimed together with this settlement.

        Only where the settled row leaves its lane for good: one that is put back would be
        overtaken, and one that fails holds those behind it.
        """
        if not run.leaves_lane:
            return None
        row = alone(self.using, self.candidate_at_once)
        return row if row is not None and row.held_by is None and row.pk != run.row.pk else None

    def _hand_off(self, run: Any, successor: Any) -> Callable[[], Any]:
        claim = _repeatable_claim(successor)

        def settle_and_claim() -> Any:
            # Both rows are locked before either is changed: a competing kick that holds the
            # successor while it waits for our lane would otherwise deadlock with us.
            self.rows.lock([run.row.pk, successor.pk])
            return successor if run.settle() and claim() else None

        return settle_and_claim


class PoolFeed:
    """Rows without order: a few are leased at once, and begun one by one."""

    def __init__(self, rows: Any, batch: int) -> None:
        self.rows, self.using, self.batch = rows, rows.db, batch
        self.claimed: list[Any] = []
        self.is_paused = False

    def first(self) -> Any:
        while not self.is_paused:
            if not self.claimed:
                self.claimed = in_transaction(self.using, self._claim_batch)
            if not self.claimed:
                return None
            if row := self.take_next():
                return row
        return None

    def settle(self, run: Any, *, claim_next: bool) -> Any:
        self.is_paused = run.pauses_pool
        settled_before = run.is_settled

        def settle_and_begin() -> int | None:
            if not settled_before:
                run.settle()
            return self._begin_next() if claim_next and not self.is_paused else None

        try:
            return self._take(in_transaction(self.using, settle_and_begin))
        except REFUSALS:
            if not settled_before:
                settle_alone(run, self.using)
            return None

    def close(self) -> None:
        while self.claimed:
            self.claimed.pop(0).put_back()

    def choose(self) -> list[Any]:
        """Return rows to lease, locked."""
        raise NotImplementedError

    def take_next(self) -> Any:
        """Begin and return the first of the leased rows that is still ours, or None."""
        return self._take(in_transaction(self.using, self._begin_next))

    def _begin_next(self) -> int | None:
        """Begin the first claimed row that is still ours; return its position."""
        return next((at for at, row in enumerate(self.claimed) if row.begin()), None)

    def _take(self, position: int | None) -> Any:
        if position is None:
            return None
        row = self.claimed[position]
        del self.claimed[: position + 1]
        return row

    def _claim_batch(self) -> list[Any]:
        if rows := self.choose():
            self._lease(rows)
        return rows

    def _lease(self, rows: list[Any]) -> None:
        model = type(rows[0])
        self.rows.filter(pk__in=[row.pk for row in rows]).update(
            **{"status": model.LEASED, model.STAMP: now(), **model.UNBEGUN},
            attempt=F("attempt") + 1,
            lease_until=from_now(model.lease_seconds()),
            leased_by=worker_identity(),
        )
        for row in rows:
            row.status, row.attempt = model.LEASED, row.attempt + 1
            row.token = row.attempt


def settle_alone(run: Any, using: str) -> None:
    """Settle a run by itself; what the database refuses to store becomes a failure."""
    try:
        alone(using, run.settle)
    except REFUSALS as error:
        run.refuse(error)
        alone(using, run.settle)


def _repeatable_claim(row: Any) -> Callable[[], bool]:
    """Return a claim of ``row`` as it was seen, for a transaction that may start again."""
    seen = row.status, row.attempt

    def claim() -> bool:
        row.status, row.attempt = seen
        return bool(row.claim())

    return claim
