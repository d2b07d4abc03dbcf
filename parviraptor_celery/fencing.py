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

MOST_COUNTED = 2**31 - 1
"""The largest number that every engine stores in the columns that count."""

AT_REST: dict[str, Any] = {"running_lane": None, "lease_until": None, "leased_by": ""}


def one_more(count: int) -> int:
    """Return ``count`` and one more, as long as there is room for it."""
    return min(count + 1, MOST_COUNTED)


class FencedRow(models.Model):
    """The verbs that move a row from state to state: each is one fenced UPDATE.

    An abstract model, not a mixin: a mixin would be named in every migration of the users'.
    """

    TRANSITIONS: ClassVar[Mapping[Any, frozenset[Any]]]
    LEASED: ClassVar[str]
    """The one state in which a row is leased."""

    STAMP: ClassVar[str]
    """The column that tells when the last transition was."""

    BEGUN: ClassVar[dict[str, Any]] = {}
    """Columns of a row whose body starts."""

    UNBEGUN: ClassVar[dict[str, Any]] = {}
    """Columns of a row that was leased in a batch and has not begun."""

    token: int | None = None
    """The attempt that this object claimed. Reading the row again must not change it."""

    claimed_pk: Any = None
    """The key of the row that this object claimed: a body may set another, to make a copy."""

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
        """Lease this row to this process and begin it; False when somebody else was faster.

        Raises:
            IntegrityError: another row of the lane is running (the guarantee of last resort).
        """
        leased = self.lease_columns() | {"attempt": self.attempt + 1, "running_lane": self.lane}
        claimed = self.move(self.LEASED, **leased, **self.BEGUN, **columns)
        self.token = None
        if claimed:
            self.hold()
        return claimed

    def hold(self) -> None:
        """Remember which row this object claimed, and by which attempt."""
        self.token, self.claimed_pk = self.attempt, self.pk

    @classmethod
    def lease_columns(cls) -> dict[str, Any]:
        """Return what a claim writes, but for the attempt and the lane."""
        return {
            "lease_until": from_now(cls.lease_seconds()),
            "leased_by": worker_identity(),
        }

    def begin(self) -> bool:
        """Renew the lease of a row claimed in a batch and note that its body starts now."""
        return self.renew(**self.BEGUN)

    def renew(self, **columns: Any) -> bool:
        """Extend the lease; False when it is lost."""
        fence, renewed = self.renewal(columns)
        return bool(fenced_update(type(self), self.alias, fence, renewed))

    def renewal(self, columns: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the fence and the columns of ``renew()``."""
        lease: dict[str, Any] = {"lease_until": from_now(self.lease_seconds())}
        return self._fence(self.LEASED), lease | dict(columns)

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
        """Write one transition, fenced; False when the row was no longer as this object says."""
        fence, written = self.transition(to, columns)
        if not fenced_update(type(self), self.alias, fence, written):
            return False
        self.has_moved(to, columns)
        return True

    def transition(
        self, to: Any, columns: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the fence and the columns of one transition.

        Every statement that writes the status of a row is made of this.

        Raises:
            IllegalTransition: the table of transitions doesn't have it.
        """
        if to not in self.TRANSITIONS[self.status]:
            raise IllegalTransition(
                f"{self._meta.label} {self.pk}: {self.status} can't become {to}."
            )
        return self._fence(self.status), {"status": to, self.STAMP: now(), **columns}

    def has_moved(self, to: Any, columns: Mapping[str, Any]) -> None:
        """Let this object say what the database says after a transition."""
        self.status = to
        for name, value in columns.items():
            if not hasattr(value, "resolve_expression"):
                setattr(self, name, value)

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
            fence = row._fence(cls.LEASED)
            by_token.setdefault(fence["attempt"], []).append(fence["pk"])
        for attempt, ids in by_token.items():
            table = cls.rows(using).filter(status=cls.LEASED, attempt=attempt)
            yield table.filter(pk__in=ids), len(ids)

    def _fence(self, status: Any) -> dict[str, Any]:
        if status == self.LEASED and self.token is not None:
            return {"pk": self.claimed_pk, "status": status, "attempt": self.token}
        return {"pk": self.pk, "status": status, "attempt": self.attempt}

    def expect(self, status: Any, verb: str) -> None:
        """Raise IllegalTransition unless the row is in ``status``."""
        if self.status != status:
            raise IllegalTransition(
                f"{self._meta.label} {self.pk} is {self.status}; only what is {status} "
                f"can be {verb}."
            )
