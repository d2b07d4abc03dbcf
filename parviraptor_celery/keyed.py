"""Keeps the promise of unique keys: of the jobs with one key that would wait, the newest waits."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction

from . import wakes
from .database import ATTEMPTS, in_transaction
from .exceptions import DuplicateUniqueKey
from .keys import is_taken
from .progress import ProgressRow
from .querysets import SUPERSEDED
from .states import CLAIMABLE, JobStatus


class KeyedRow(ProgressRow):
    """A job that may have a unique key, which is in ``waiting_key`` as long as the job waits.

    The methods here cost jobs without a key nothing.
    """

    unique_key: Any

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save as ``GuardedRow`` does.

        Raises:
            DuplicateUniqueKey: it is to wait again, and another job with its key is waiting.
        """
        if self.unique_key is None or self._state.adding:
            super().save(*args, **kwargs)
            return
        try:
            with transaction.atomic(using=kwargs.get("using") or self.alias):
                super().save(*args, **kwargs)
        except IntegrityError as error:
            holder = self._holder_of_key() if self.status in CLAIMABLE else None
            if holder is None and not is_taken(error, type(self)):
                raise
            raise self._duplicate(holder) from error

    def move(self, to: JobStatus, **columns: Any) -> bool:
        """Write one transition; see ``FencedRow.move``.

        A job that would wait again while a newer one with its key waits becomes ``SQUASHED``
        instead; an older one that waits is superseded by this one.
        """
        if self.unique_key is None or (self.status in CLAIMABLE) == (to in CLAIMABLE):
            return super().move(to, **columns)
        if to in CLAIMABLE:
            return self._wait_again(to, columns)
        return super().move(to, **columns | {"waiting_key": None})

    def wait_by_hand(self, **columns: Any) -> bool:
        """Return a failed job to the waiting ones because a person asked for it.

        Raises:
            DuplicateUniqueKey: another job with its key is waiting.
        """
        if self.unique_key is None:
            return self.move(JobStatus.NEW, **columns)
        return self._wait_again(JobStatus.NEW, columns, is_asked_for=True)

    def _wait_again(
        self, to: JobStatus, columns: dict[str, Any], *, is_asked_for: bool = False
    ) -> bool:
        before, freed = self.status, dict[str, int]()

        def take() -> bool:
            self.status = before  # should the transaction start again
            return self._take_key(to, columns, is_asked_for, freed)

        def take_again() -> bool:
            return self._has_come_back(to, columns) or take()

        for attempt in range(1, ATTEMPTS + 1):
            try:
                is_done = in_transaction(self.alias, take, again=take_again)
            except IntegrityError as error:
                # Somebody was faster with the key, even if it is free again.
                if attempt == ATTEMPTS or not is_taken(error, type(self)):
                    raise
                continue
            if is_done and freed:  # here, as a hook goes with a COMMIT whose answer is lost
                wakes.after_commit(type(self), self.alias, freed)
            return is_done
        raise AssertionError("unreachable")

    def _take_key(
        self, to: JobStatus, columns: dict[str, Any], is_asked_for: bool, freed: dict[str, int]
    ) -> bool:
        """Wait with the key, or give way; note in ``freed`` another lane that this sets free."""
        holder = self._holder_of_key()
        if holder is not None and is_asked_for:
            raise self._duplicate(holder)
        if holder is not None and holder > self.pk:
            superseded = columns | {"error_message": SUPERSEDED.format(holder), "run_after": None}
            return super().move(JobStatus.SQUASHED, **superseded)
        if holder is not None:
            freed |= self._supersede(holder)
        is_done = super().move(to, **columns | {"waiting_key": self.unique_key})
        if not is_done:
            transaction.set_rollback(True, using=self.alias)  # of this block, a savepoint mostly
        return is_done

    def _supersede(self, older_pk: int) -> dict[str, int]:
        """Squash an older job that waits with our key; return its lane, if that isn't ours."""
        older = self.rows(self.alias).filter(pk=older_pk)
        if not older.supersede(self.pk):
            return {}
        lane = older.values_list("lane", flat=True).get()
        return {} if lane in (None, self.lane) else {lane: older_pk}

    def _has_come_back(self, to: JobStatus, columns: dict[str, Any]) -> bool:
        """Return whether an earlier try went through, though its answer was lost."""
        for status in (to, JobStatus.SQUASHED):
            if self.has_come_to(status):
                told = self.rows(self.alias).filter(pk=self.pk).values("error_message", "run_after")
                self.has_moved(status, columns | (told.first() or {}))
                return True
        return False

    def _holder_of_key(self) -> int | None:
        holders = self.rows(self.alias).with_waiting_key(self.unique_key).exclude(pk=self.pk)
        holder: int | None = holders.values_list("pk", flat=True).first()
        return holder

    def _duplicate(self, holder: int | None) -> DuplicateUniqueKey:
        waiting = "another job" if holder is None else f"job {holder}"
        return DuplicateUniqueKey(
            f"{self._meta.label} {self.pk} can't wait again: {waiting} with the same "
            f"unique_key={self.unique_key!r} is waiting. Let that one run, or cancel it first."
        )
