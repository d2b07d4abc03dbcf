"""Querysets over leased rows: what both apps ask their tables."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from django.db import connections, models
from django.db.models import Exists, ExpressionWrapper, OuterRef, Q, Subquery

from .clock import now
from .prepared import PreparedSelect

ANY_LANE = "<lane>"


class LeasedQuerySet(models.QuerySet[Any, Any]):
    """Rows that wait, are leased, and keep an order within their lane."""

    WAITING: ClassVar[str]
    LEASED: ClassVar[str]

    def obstacles(self) -> Self:
        """Return the rows that hold the later rows of an outer row's lane."""
        raise NotImplementedError

    def due(self) -> Self:
        """Rows whose due time has come (or that have none), by the database's clock."""
        return self.filter(_is_due())

    def waiting(self) -> Self:
        return self.filter(status=self.WAITING)

    def waiting_in(self, lane: str) -> Self:
        """The waiting rows of a lane, next first."""
        return self._in_lane(lane, self.WAITING)

    def expired(self) -> Self:
        """Leased rows whose lease ran out, by the database's clock."""
        return self.filter(status=self.LEASED, lease_until__lt=now()).order_by("id")

    def as_candidates(self) -> Self:
        """Annotate what decides whether a row may run.

        ``is_due``; ``held_by``, the id of the first earlier row that holds its lane; and
        ``lane_is_running``.
        """
        table = type(self)(self.model, using=self.db)
        obstacles = table.obstacles().filter(id__lt=OuterRef("id")).order_by("lane", "id")
        return self.annotate(
            held_by=Subquery(obstacles.values("id")[:1]),
            lane_is_running=Exists(table.filter(running_lane=OuterRef("lane"))),
            is_due=ExpressionWrapper(_is_due(), output_field=models.BooleanField()),
        )

    def candidate(self, lane: str, status: str) -> Any:
        """Return the first row of ``lane`` in ``status``, as a candidate, or None.

        Every claim starts with this question.
        """
        prepared = _candidate(type(self), self.model, self.db, status)  # type: ignore[arg-type]
        return prepared.first({ANY_LANE: lane})

    def is_attended(self, lane: str, pk: int) -> bool:
        """Return whether somebody comes to row ``pk`` of ``lane`` by themselves.

        Whoever runs the lane looks again after every commit, and an earlier waiting row has a
        kick of its own. If that one was lost, the sweep brings both.
        """
        table = connections[self.db].ops.quote_name(self.model._meta.db_table)
        with connections[self.db].cursor() as cursor:
            cursor.execute(_ATTENDED.format(table=table), [lane, self.WAITING, lane, pk])
            return bool(cursor.fetchone()[0])

    def unlocked(self) -> Self:
        """Lock the rows that nobody else has locked, and leave the others out.

        SQLite has one writer, and needs no row locks.
        """
        features = connections[self.db].features
        if not features.has_select_for_update:
            return self
        return self.select_for_update(skip_locked=features.has_select_for_update_skip_locked)

    def lock(self, ids: list[int]) -> None:
        """Lock these rows, waiting for whoever has them, always in the same order."""
        if connections[self.db].features.has_select_for_update:
            rows = self.filter(pk__in=ids).order_by("pk").select_for_update()
            list(rows.values_list("pk"))

    def exists_locked(self) -> bool:
        """Return whether there is such a row, and keep it as it is until the transaction ends."""
        rows = self.order_by("pk")
        if connections[self.db].features.has_select_for_update:
            rows = rows.select_for_update()
        return bool(rows.values_list("pk")[:1])

    def lane_heads(self, status: str, after: str, limit: int) -> Iterator[tuple[str, int]]:
        """Yield ``(lane, id)`` of the first row of each lane in ``status``, lanes in order.

        Starts behind the lane ``after`` and stops after ``limit`` lanes. Each lane costs one
        look into the index, however many rows wait in it.
        """
        heads = self.filter(status=status).order_by("lane", "id").values_list("lane", "id")
        for _ in range(limit):
            head = heads.filter(lane__gt=after).first()
            if head is None:
                return
            yield head
            after = head[0]

    def startable(self, heads: dict[str, int]) -> list[str]:
        """Return those lanes of ``heads`` (lane to id) whose head is due and that don't run."""
        lanes, found = sorted(heads), list[str]()
        for first in range(0, len(lanes), 500):
            chunk = lanes[first : first + 500]
            due = self.filter(id__in=[heads[lane] for lane in chunk]).due()
            running = self.filter(running_lane__in=chunk).values_list("running_lane", flat=True)
            found += sorted(set(due.values_list("lane", flat=True)) - set(running))
        return found

    def _in_lane(self, lane: str, status: str) -> Self:
        same_lane = {"lane": lane}
        if connections[self.db].vendor == "postgresql":
            # Of `lane = x ORDER BY id` PostgreSQL may think that walking the primary key is
            # cheaper, and then filter every row of the table. A range it can't mistake.
            same_lane = {"lane__gte": lane, "lane__lte": lane}
        return self.filter(status=status, **same_lane).order_by("lane", "id")


_ATTENDED = """
SELECT EXISTS (SELECT 1 FROM {table} WHERE running_lane = %s)
OR EXISTS (SELECT 1 FROM {table} WHERE status = %s AND lane = %s AND id < %s)
"""


@functools.cache
def _candidate(kind: type[LeasedQuerySet], model: Any, using: str, status: str) -> PreparedSelect:
    rows = kind(model, using=using)._in_lane(ANY_LANE, status)
    return PreparedSelect(rows.as_candidates()[:1])


def _is_due() -> Q:
    return Q(run_after__isnull=True) | Q(run_after__lte=now())
