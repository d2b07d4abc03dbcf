"""Rows without order, by the batch: the feed that both apps derive theirs from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .database import REFUSALS, alone, in_transaction
from .fencing import MOST_COUNTED
from .settling import settle_alone
from .unreadable import UnclaimableRow, claiming

MOST_SPOILT = 20
"""So many batches of which nothing can be claimed are passed over at a time."""

MOST_UNPROCESSABLE = 10
"""After so many in a row a pool is left alone: what they wait for is missing for all of them."""


class PoolFeed:
    """Rows without order: a few are leased at once, and begun one by one."""

    comes_back = False

    def __init__(self, rows: Any, batch: int) -> None:
        self.rows, self.using, self.batch = rows, rows.db, batch
        self.claimed: list[Any] = []
        self.tried: list[Any] = []
        """What was leased in the last transaction, which may not have been committed."""

        self.apart: list[Any] = []
        """Rows that may have spoilt a batch, to be claimed one by one: a queryset for each."""

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

        def again() -> int | None:
            run.settle_again()
            return self._begin_next()

        return self._take(in_transaction(self.using, settle_and_begin, again=again))

    def close(self) -> None:
        while self.claimed:
            self.claimed.pop(0).put_back()

    def choose(self) -> list[Any]:
        """Return rows to lease, locked.

        Raises:
            UnreadableRow: one of them can't be read.
        """
        raise NotImplementedError

    def next_apart(self) -> list[Any]:
        """Return a queryset for each of the rows that ``choose()`` would read, without reading.

        It has the row only as long as that may be claimed.
        """
        raise NotImplementedError

    def prepare(self, rows: list[Any]) -> list[Any]:
        """Return rows that were just leased, in the same transaction, for what is done next."""
        return rows

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
        """Lease the next rows; those that can't be claimed together are claimed one by one."""
        for _ in range(MOST_SPOILT):
            if not self.apart:
                try:
                    return self._claim(self.choose)
                except UnclaimableRow:
                    self.apart = self.next_apart()
            while self.apart:
                if claimed := self._claim_apart(self.apart.pop(0)):
                    return claimed
        return []

    def _claim_apart(self, row: Any) -> list[Any]:
        """Claim the one row of a queryset; if it can't be, it waits a minute."""
        try:
            return self._claim(lambda: row.read_unlocked(1))
        except UnclaimableRow as error:
            alone(self.using, functools.partial(row.postpone, error))
            return []

    def _claim(self, choose: Callable[[], list[Any]]) -> list[Any]:
        """Lease what ``choose`` returns, in a transaction.

        Raises:
            UnclaimableRow: one of the rows can't be read, or not be leased; none of them is.
        """
        with claiming(self.rows.model):
            return in_transaction(
                self.using,
                functools.partial(self._lease_chosen, choose),
                again=functools.partial(self._lease_chosen_again, choose),
            )

    def _lease_chosen(self, choose: Callable[[], list[Any]]) -> list[Any]:
        self.tried = []
        if rows := choose():
            self._lease(rows)
        return self.prepare(rows)

    def _lease_chosen_again(self, choose: Callable[[], list[Any]]) -> list[Any]:
        """Lease when an earlier try may have gone through: then its rows are ours already."""
        ids = [row.pk for row in self.tried]
        held = self.rows.model.rows(self.using).held_here().filter(pk__in=ids)
        ours = set(held.values_list("pk", "attempt")) if ids else set()
        rows = [row for row in self.tried if (row.pk, row.attempt) in ours]
        return self.prepare(rows) if rows else self._lease_chosen(choose)

    def _lease(self, rows: list[Any]) -> None:
        model = type(rows[0])
        if any(row.attempt >= MOST_COUNTED for row in rows):
            raise OverflowError("an attempt can't be counted on")  # SQLite would store a float
        self.rows.lease([row.pk for row in rows])
        for row in rows:
            row.status, row.attempt = model.LEASED, row.attempt + 1
            row.hold()
        self.tried = rows
