"""A lane in order: the feed that both apps derive theirs from."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from django.db import IntegrityError

from .database import REFUSALS, alone, in_transaction
from .settling import settle_alone
from .texts import printable
from .unreadable import UnclaimableRow, claiming

logger = logging.getLogger("parviraptor_celery")

MOST_RACES = 20
"""So many claims in a row are lost to another row of the lane, then the sweep has to come."""


class LaneFeed:
    """One lane: the head runs, then its successor, never two at a time."""

    comes_back = False
    """Whether the lane asks for another turn, after those of the others."""

    def __init__(self, rows: Any, lane: str) -> None:
        self.rows, self.using, self.lane = rows, rows.db, lane

    def first(self) -> Any:
        try:
            return self._first()
        except UnclaimableRow as error:
            alone(self.using, functools.partial(self.rows.postpone, error))
            return None

    def _first(self) -> Any:
        races = 0
        while races < MOST_RACES:
            row = alone(self.using, self.candidate)
            if row is None or row.lane_is_running:
                return None  # whoever runs the lane looks again when done
            with claiming(self.rows.model, row):
                if row.held_by is not None:
                    if not self.clear_obstacle(row):
                        return None
                elif self.fold(row):
                    pass
                elif self._claim_alone(row):
                    return row
                else:
                    races += 1
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
        settle_and_claim = self._settle_and_claim(run, successor)
        return in_transaction(self.using, settle_and_claim, again=lambda: self.hand_off_again(run))

    def hand_off_again(self, run: Any) -> Any:
        """Settle a run when an earlier try may have gone through; return what that claimed.

        If it didn't, nothing is claimed: the look that follows does that.
        """
        run.settle_again()
        row = self.rows.read_held(self.lane)
        if row is not None:
            row.hold()
        return row

    def close(self) -> None:
        """A lane is claimed one row at a time: nothing is left over."""

    def candidate(self) -> Any:
        """Return the row that is next, annotated by ``as_candidates()``, or None.

        Raises:
            UnclaimableRow: there is one, and it can't be claimed here.
        """
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
            return alone(
                self.using,
                _repeatable_claim(row, row.claim),
                again=_repeatable_claim(row, row.claim_again),
            )
        except IntegrityError:
            return False  # another row of the lane was claimed between our look and our write

    def _successor_of(self, run: Any) -> Any:
        """Return the row that may be claimed together with this settlement."""
        try:
            row = alone(self.using, self.candidate_at_once)
        except (UnclaimableRow, *REFUSALS):
            return None  # the look that follows deals with it
        return row if row is not None and row.held_by is None and row.pk != run.row.pk else None

    def _settle_and_claim(self, run: Any, successor: Any) -> Callable[[], Any]:
        claim = _repeatable_claim(successor, successor.claim)

        def settle_and_claim() -> Any:
            # Both rows are locked before either is changed: a competing kick that holds the
            # successor while it waits for our lane would otherwise deadlock with us.
            self.rows.lock([run.row.pk, successor.pk])
            return successor if run.settle() and claim() else None

        return settle_and_claim


def _repeatable_claim(row: Any, claim: Callable[[], bool]) -> Callable[[], bool]:
    """Return ``claim`` of ``row`` as it was seen, for a transaction that may start again."""
    seen = row.status, row.attempt

    def claim_as_seen() -> bool:
        row.status, row.attempt = seen
        return claim()

    return claim_as_seen
