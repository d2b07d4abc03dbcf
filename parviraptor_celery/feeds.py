"""Feeds over leased rows: a lane in order, or a pool by the batch. Both apps derive from them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, OperationalError

from .database import REFUSALS, alone, in_transaction, is_refusal, is_transient
from .fencing import MOST_COUNTED
from .texts import printable
from .unreadable import UnreadableRow

logger = logging.getLogger("parviraptor_celery")

MOST_REFUSALS = 20

MOST_UNPROCESSABLE = 10
"""After so many in a row a pool is left alone: what they wait for is missing for all of them."""


class LaneFeed:
    """One lane: the head runs, then its successor, never two at a time."""

    comes_back = False
    """Whether the lane asks for another turn, after those of the others."""

    def __init__(self, rows: Any, lane: str) -> None:
        self.rows, self.using, self.lane = rows, rows.db, lane

    def first(self) -> Any:
        try:
            return self._first()
        except Exception as error:
            if not is_refusal(error):
                raise
            # Of what the row holds: an attempt that can't be counted on, a date past all dates.
            logger.error(
                "%s: lane %s was left alone, its next row can't be claimed (%s)",
                self.rows.model._meta.label,
                printable(self.lane),
                type(error).__name__,
            )
            return None

    def _first(self) -> Any:
        refusals = 0
        while refusals < MOST_REFUSALS:
            try:
                row = alone(self.using, self.candidate)
            except UnreadableRow as error:
                alone(self.using, functools.partial(self.rows.postpone, error))
                return None
            if row is None or row.lane_is_running:
                return None  # whoever runs the lane looks again when done
            if row.held_by is not None:
                if not self.clear_obstacle(row):
                    return None
            elif self.fold(row):
                pass
            elif self._claim_alone(row):
                return row
            else:
                refusals += 1
            if self.comes_back:
                return None
        logger.warning(
            "%s: lane %s could not be claimed, left to the sweep",
            self.rows.model._meta.label,
            printable(self.lane),
        )
        return None

    def settle(self, run: Any, *, claim_next: bool) -> Any:
        if run.is_settled:
            return None
        if claim_next and run.leaves_lane:
            try:
                return self.hand_off(run)
            except REFUSALS:
                pass  # of the outcome, or of the claim because the lane was taken in between
        settle_alone(run, self.using)
        return None

    def hand_off(self, run: Any) -> Any:
        """Settle a run and claim what is next, together; return that, or None.

        Only for a row that leaves its lane for good: one that is put back would be overtaken,
        and one that fails holds those behind it.
        """
        successor = self._successor_of(run)
        if successor is None:
            settle_alone(run, self.using)
            return None
        return in_transaction(self.using, self._settle_and_claim(run, successor))

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

    def fold(self, row: Any) -> bool:
        """Let the candidate, which could run, give way to a later row; True: look again."""
        return False

    def _claim_alone(self, row: Any) -> bool:
        try:
            return alone(self.using, _repeatable_claim(row))
        except IntegrityError:
            return False  # another row of the lane was claimed between our look and our write

    def _successor_of(self, run: Any) -> Any:
        """Return the row that may be claimed together with this settlement."""
        try:
            row = alone(self.using, self.candidate_at_once)
        except (UnreadableRow, *REFUSALS):
            return None  # the look that follows deals with it
        return row if row is not None and row.held_by is None and row.pk != run.row.pk else None

    def _settle_and_claim(self, run: Any, successor: Any) -> Callable[[], Any]:
        claim = _repeatable_claim(successor)

        def settle_and_claim() -> Any:
            # Both rows are locked before either is changed: a competing kick that holds the
            # successor while it waits for our lane would otherwise deadlock with us.
            self.rows.lock([run.row.pk, successor.pk])
            return successor if run.settle() and claim() else None

        return settle_and_claim


class PoolFeed:
    """Rows without order: a few are leased at once, and begun one by one."""

    comes_back = False

    def __init__(self, rows: Any, batch: int) -> None:
        self.rows, self.using, self.batch = rows, rows.db, batch
        self.claimed: list[Any] = []
        self.unprocessable_in_a_row = 0
        self.is_paused = False

    def first(self) -> Any:
        while not self.is_paused:
            if not self.claimed:
                self.claimed = self._claim_some()
            if not self.claimed:
                return None
            if row := self.take_next():
                return row
        return None

    def settle(self, run: Any, *, claim_next: bool) -> Any:
        self.unprocessable_in_a_row = self.unprocessable_in_a_row + 1 if run.pauses_pool else 0
        self.is_paused = self.unprocessable_in_a_row >= MOST_UNPROCESSABLE
        goes_on = bool(claim_next and self.claimed and not self.is_paused)
        if run.is_settled:
            return self.take_next() if goes_on else None
        if goes_on:
            try:
                return self.hand_on(run)
            except REFUSALS:
                pass
        settle_alone(run, self.using)
        return None

    def hand_on(self, run: Any) -> Any:
        """Settle a run and begin the next of the leased rows together; return it, or None."""

        def settle_and_begin() -> int | None:
            run.settle()
            return self._begin_next()

        return self._take(in_transaction(self.using, settle_and_begin))

    def close(self) -> None:
        while self.claimed:
            self.claimed.pop(0).put_back()

    def choose(self) -> list[Any]:
        """Return rows to lease, locked."""
        raise NotImplementedError

    def next_ids(self) -> list[int]:
        """Return the ids of the rows that ``choose()`` would read, without reading them."""
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

    def _claim_some(self) -> list[Any]:
        for _ in range(MOST_REFUSALS):
            try:
                return in_transaction(self.using, self._claim_batch)
            except Exception as error:
                if not is_refusal(error):
                    raise
            if claimed := self._claim_one_by_one():
                return claimed
        return []

    def _claim_one_by_one(self) -> list[Any]:
        """Claim the first row that can be; what spoils a batch waits a minute."""
        for pk in self.next_ids():
            row = self.rows.model.rows(self.using).filter(pk=pk)
            try:
                if claimed := in_transaction(self.using, functools.partial(self._claim, row)):
                    return claimed
            except Exception as error:
                if not is_refusal(error):
                    raise
                values = row.values("id", "status", "attempt").get()
                self.rows.postpone(UnreadableRow(self.rows.model, values, error))
        return []

    def _claim(self, row: Any) -> list[Any]:
        waiting = row.exclude(status=self.rows.model.LEASED)
        if rows := list(waiting.defer(*self.rows.UNREAD).unlocked()):
            self._lease(rows)
        return rows

    def _claim_batch(self) -> list[Any]:
        if rows := self.choose():
            self._lease(rows)
        return rows

    def _lease(self, rows: list[Any]) -> None:
        model = type(rows[0])
        if any(row.attempt >= MOST_COUNTED for row in rows):
            raise OverflowError("an attempt can't be counted on")  # SQLite would store a float
        self.rows.lease([row.pk for row in rows])
        for row in rows:
            row.status, row.attempt = model.LEASED, row.attempt + 1
            row.hold()


def settle_alone(run: Any, using: str) -> None:
    """Settle a run by itself; what the database refuses to store becomes a failure."""
    try:
        alone(using, run.settle)
    except REFUSALS as error:
        run.refuse(error)
        alone(using, run.settle)
    except OperationalError as error:
        # Of SQLite and MariaDB also what others call a wrong statement.
        if is_transient(error):
            raise
        run.refuse(error)
        alone(using, run.settle)


def _repeatable_claim(row: Any) -> Callable[[], bool]:
    """Return a claim of ``row`` as it was seen, for a transaction that may start again."""
    seen = row.status, row.attempt

    def claim() -> bool:
        row.status, row.attempt = seen
        return bool(row.claim())

    return claim
