"""Periodic work that may be asked for twice, or by nobody: one row per kind of work."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Self

from django.db import models, transaction
from django.db.models import Q

from .clock import now


class TickManager(models.Manager[Any]):
    """Takes ticks by compare-and-set, so that two beats do the work once."""

    def take(self, name: str, at_most_every: float, *, using: str) -> bool:
        """Return whether the work ``name`` is due: not done in ``at_most_every`` seconds.

        Of several callers at the same moment exactly one gets True.
        """
        rows = self.using(using)
        stale = Q(last_at__isnull=True) | Q(last_at__lte=now() - timedelta(seconds=at_most_every))
        due = rows.filter(stale, name=name)
        if due.update(last_at=now()):
            return True
        if rows.filter(name=name).exists():
            return False
        with transaction.atomic(using=using):
            rows.bulk_create([self.model(name=name)], ignore_conflicts=True)
        return bool(due.update(last_at=now()))

    def note(self, name: str, *, using: str) -> None:
        """Remember that ``name`` happened now."""
        rows = self.using(using).filter(name=name)
        if not rows.update(last_at=now()):
            with transaction.atomic(using=using):
                self.using(using).bulk_create([self.model(name=name)], ignore_conflicts=True)
            rows.update(last_at=now())

    def age(self, names: Iterable[str], *, using: str) -> timedelta | None:
        """Return how long ago one of ``names`` last happened, by the database's clock, or None."""
        rows = self.using(using).filter(name__in=names, last_at__isnull=False).order_by("-last_at")
        times = rows.annotate(database_time=now()).values_list("last_at", "database_time").first()
        return None if times is None else max(times[1] - times[0], timedelta(0))


class AbstractTick(models.Model):
    """A kind of periodic work: when it was last done, and where the next round starts."""

    name = models.CharField(max_length=150, primary_key=True)
    last_at = models.DateTimeField(null=True)
    cursor = models.CharField(max_length=64, blank=True, default="")

    objects = TickManager()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.name}: {self.last_at}"

    @classmethod
    def cursor_of(cls, name: str, using: str) -> str:
        """Return where the next round of ``name`` starts ("" for the beginning)."""
        row = cls._default_manager.using(using).filter(name=name).first()
        return row.cursor if row else ""

    @classmethod
    def save_cursor(cls, name: str, cursor: str, using: str) -> Self:
        """Remember where the next round of ``name`` starts."""
        tick, _ = cls._default_manager.using(using).update_or_create(
            name=name, defaults={"cursor": cursor}
        )
        return tick
