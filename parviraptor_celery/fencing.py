"""Rows that belong to one worker at a time; the base of jobs and of outbox events.

Every write is fenced by ``(id, status, attempt)``. ``attempt`` is counted at each claim, so a
worker that slept through its lease holds a number that nobody honours any more (a fencing
token: Martin Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from django.db import models, router, transaction

from .clock import from_now, now
from .exceptions import IllegalTransition
from .leases import worker_identity
from .statements import fenced_update

AT_REST: dict[str, Any] = {"running_lane": None, "lease_until": None, "leased_by": ""}


class FencedRow(models.Model):
    """The verbs that move a row from state to state: each is one fenced UPDATE.

    An abstract model, not a mixin: a mixin would be named in every migration of the users'.
    """

    TRANSITIONS: ClassVar[Mapping[Any, frozenset[Any]]]
    LEASED: ClassVar[str]
    """The one state in which a row is leased."""

    STAMP: ClassVar[str]
    """The column that tells when the last transition was."""

    UNBEGUN: ClassVar[dict[str, Any]] = {}
    """Columns of a row that was leased in a batch and has not begun."""

    token: int | None = None
    """The attempt that this object claimed. Reading the row again must not change it."""

    status: Any
    attempt: Any
    lane: Any

    class Meta:
        abstract = True

    @classmethod
    def lease_seconds(cls) -> float:
        """Return how long a claim holds without a heartbeat."""
        raise NotImplementedError

    @classmethod
    def rows(cls, using: str) -> Any:
        """Return all rows in the database ``using``, whatever managers the class has."""
        raise NotImplementedError

    @property
    def alias(self) -> str:
        """The database that this row lives in."""
        return self._state.db or router.db_for_write(type(self))

    def claim(self, **columns: Any) -> bool:
        """Lease this row to this process; False when somebody else was faster.

        Raises:
            IntegrityError: another row of the lane is running (the guarantee of last resort).
        """
        claimed = self.move(
            self.LEASED,
            attempt=self.attempt + 1,
            running_lane=self.lane,
            lease_until=from_now(self.lease_seconds()),
            leased_by=worker_identity(),
            **columns,
        )
        self.token = self.attempt if claimed else None
        return claimed

    def renew(self, **columns: Any) -> bool:
        """Extend the lease; False when it is lost."""
        lease: dict[str, Any] = {"lease_until": from_now(self.lease_seconds())}
        return bool(
            fenced_update(type(self), self.alias, self._fence(self.LEASED), lease | columns)
        )

    def keep_lease(self) -> bool:
        """Renew the lease for a heartbeat: without waiting for a lock, and False when it is lost.

        A body may hold its own row; it is alive then, and the rescue leaves locked rows alone.
        """
        with transaction.atomic(using=self.alias):
            held: Any = self.held()
            if held.unlocked().values_list("pk").first() is not None:
                return self.renew()
        return self.held().exists()

    def rest(self, status: str, **columns: Any) -> bool:
        """End the lease and leave the row in ``status``; False when it was no longer ours."""
        return self.move(status, **AT_REST, **columns)

    def move(self, to: Any, **columns: Any) -> bool:
        """Write one transition, fenced; the only place where the status of a row is written."""
        if to not in self.TRANSITIONS[self.status]:
            raise IllegalTransition(
                f"{self._meta.label} {self.pk}: {self.status} can't become {to}."
            )
        transition = {"status": to, self.STAMP: now()}
        fence = self._fence(self.status)
        if not fenced_update(type(self), self.alias, fence, transition | columns):
            return False
        self.status = to
        for name, value in columns.items():
            if not hasattr(value, "resolve_expression"):
                setattr(self, name, value)
        return True

    def held(self) -> models.QuerySet[Any]:
        """Return this row if it is still leased to us, as a queryset."""
        rows: models.QuerySet[Any] = self.rows(self.alias).filter(**self._fence(self.LEASED))
        return rows

    @classmethod
    def held_together(cls, rows: list[Any], using: str) -> Iterator[tuple[Any, int]]:
        """Yield querysets of those of ``rows`` still leased to us, and how many each should have.

        One for each attempt number, so that one statement fences many rows.
        """
        by_token: dict[int, list[int]] = {}
        for row in rows:
            by_token.setdefault(row._fence(cls.LEASED)["attempt"], []).append(row.pk)
        for attempt, ids in by_token.items():
            table = cls.rows(using).filter(status=cls.LEASED, attempt=attempt)
            yield table.filter(pk__in=ids), len(ids)

    def _fence(self, status: Any) -> dict[str, Any]:
        attempt = self.attempt
        if status == self.LEASED and self.token is not None:
            attempt = self.token
        return {"pk": self.pk, "status": status, "attempt": attempt}

    def expect(self, status: Any, verb: str) -> None:
        """Raise IllegalTransition unless the row is in ``status``."""
        if self.status != status:
            raise IllegalTransition(
                f"{self._meta.label} {self.pk} is {self.status}; only what is {status} "
                f"can be {verb}."
            )
