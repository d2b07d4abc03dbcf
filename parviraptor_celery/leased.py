"""Querysets over leased rows: what both apps ask their tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

from django.db import DataError, connections, models
from django.db.models import Exists, ExpressionWrapper, F, OuterRef, Q, Subquery

from .clock import kept, now
from .hints import NOT_BY_PRIMARY_KEY, avoid_primary_key
from .leases import worker_identity
from .prepared import PreparedSelect
from .statements import equations, fenced_update
from .states import Literal
from .unreadable import IDENTITY, UnclaimableRow, UnreadableRow, postponed, reading

ANY_LANE = "<lane>"
"""Stands for the lane in prepared queries."""


class LeasedQuerySet(models.QuerySet[Any, Any]):
    """Rows that wait, are leased, and keep an order within their lane."""

    WAITING: ClassVar[str]
    LEASED: ClassVar[str]
    UNREAD: ClassVar[tuple[str, ...]] = ()
    """Columns that a claimed row rarely needs, and that are read when asked for."""

    def obstacles(self, lane: str) -> Self:
        """Return the rows that hold the later rows of ``lane``, in the order of an index."""
        raise NotImplementedError

    def due(self) -> Self:
        """Rows whose due time has come (or that have none), by the database's clock."""
        return self.filter(_is_due())

    def waiting(self) -> Self:
        return self.filter(status=Literal(self.WAITING))

    def waiting_in(self, lane: str) -> Self:
        """The waiting rows of a lane, next first."""
        return self._in_lane(lane, self.WAITING)

    def expired(self) -> Self:
        """Leased rows whose lease ran out, by the database's clock."""
        found = self.filter(status=Literal(self.LEASED), lease_until__lt=now()).order_by("id")
        if connections[self.db].vendor == "mysql":
            avoid_primary_key(found.query)
        return found

    def as_candidates(self, lane: str) -> Self:
        """Annotate what decides whether a row of ``lane`` may run.

        ``is_due``; ``held_by``, the id of the first earlier row that holds its lane; and
        ``lane_is_running``.
        """
        table = type(self)(self.model, using=self.db)
        # By the lane itself, not by that of the outer row: of that PostgreSQL makes a hash over
        # everything that runs.
        obstacles = table.obstacles(lane)._earlier_than(OuterRef("id"))
        return self.annotate(
            held_by=Subquery(obstacles.values("id")[:1]),
            lane_is_running=Exists(table.filter(running_lane=lane)),
            is_due=ExpressionWrapper(_is_due(), output_field=models.BooleanField()),
        )

    def candidate(self, lane: str, status: str) -> Any:
        """Return the first row of ``lane`` in ``status``, as a candidate, or None.

        Every claim starts with this question.

        Raises:
            UnreadableRow: there is one, and it can't be read.
        """
        try:
            return self.prepared_candidate(status).first({ANY_LANE: lane})
        except DataError as error:  # the driver can't make values of it
            seen = self._in_lane(lane, status).values(*IDENTITY).first()
            raise UnreadableRow(self.model, seen or {}, error) from error

    def prepared_candidate(self, status: str) -> PreparedSelect:
        """Return the query of ``candidate()``, with ``ANY_LANE`` in place of the lane."""
        return _candidate(type(self), self.model, self.db, status, self.variant())

    def variant(self) -> object:
        """Return what else the SQL of ``as_candidates()`` depends on, such as missing tables."""
        return None

    def postpone(self, error: UnclaimableRow) -> int:
        """Let a waiting row that can't be claimed here wait a minute for a worker that can.

        Where ``error`` doesn't say which it is, the first of these rows, if it still is one.
        """
        error.values = error.values or self.values(*IDENTITY).first() or {}
        if not error.values:
            return 0
        fence = {name: error.values[name] for name in IDENTITY}
        return fenced_update(self.model, self.db, fence, postponed(error))

    def is_attended(self, lane: str, pk: int) -> bool:
        """Return whether somebody comes to row ``pk`` of ``lane`` by themselves.

        Whoever runs the lane looks again after every commit, and an earlier waiting row has a
        kick of its own. If that one was lost, the sweep brings both.
        """
        connection = connections[self.db]
        form = _ATTENDED.format(
            table=connection.ops.quote_name(self.model._meta.db_table),
            waiting=self.WAITING,
            same_lane="lane = %s" if connection.vendor == "mysql" else "lane BETWEEN %s AND %s",
            hint=NOT_BY_PRIMARY_KEY if connection.vendor == "mysql" else "",
        )
        lanes = [lane] * (form.count("%s") - 1)
        with connection.cursor() as cursor:
            cursor.execute(form, [*lanes, pk])
            return bool(cursor.fetchone()[0])

    def held_here(self) -> Self:
        """Rows that this thread has leased, and nobody has settled."""
        return self.filter(status=Literal(self.LEASED), leased_by=worker_identity())

    def put_back(self, error: UnclaimableRow) -> bool:
        """Let a row wait a minute that was claimed here before it could be read."""
        fence = {name: error.values[name] for name in ("id", "attempt")}
        row = self.filter(status=Literal(self.LEASED), **fence).only(*IDENTITY).first()
        return row is not None and row.put_back(**postponed(error))

    def read_held(self, lane: str) -> Any:
        """Return the row of ``lane`` that this thread has leased, or None.

        One that can't be read is put back.
        """
        held = self.held_here().filter(running_lane=lane)
        try:
            with reading(self.model):
                return held.first()
        except UnreadableRow as error:
            error.values = held.values(*IDENTITY)[0]
            self.put_back(error)
            return None

    def read_unlocked(self, limit: int) -> list[Any]:
        """Return the first of these rows that nobody has locked, locked, to be claimed.

        Raises:
            UnreadableRow: one of them can't be read; which, is not known.
        """
        with reading(self.model):
            return list(self.defer(*self.UNREAD).unlocked()[:limit])

    def apart(self, limit: int) -> list[Self]:
        """Return a queryset for each of the first of these rows, without reading them."""
        return [self.filter(pk=pk) for pk in self.values_list("pk", flat=True)[:limit]]

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
        connection = connections[self.db]
        if not connection.features.has_select_for_update:
            return
        table = connection.ops.quote_name(self.model._meta.db_table)
        places = ", ".join(["%s"] * len(ids))
        with connection.cursor() as cursor:
            cursor.execute(_LOCK.format(table=table, places=places), ids)
            cursor.fetchall()

    def lease(self, ids: list[int]) -> None:
        """Lease these rows, which are locked, to this process; none of them begins yet."""
        model, connection = self.model, connections[self.db]
        leased = {"status": model.LEASED, model.STAMP: now(), **model.UNBEGUN}
        claim, params = equations(model, connection, leased | model.lease_columns())
        table = connection.ops.quote_name(model._meta.db_table)
        places = ", ".join(["%s"] * len(ids))
        sql = _LEASE.format(table=table, columns=", ".join(claim), places=places)
        with connection.cursor() as cursor:
            cursor.execute(sql, [*params, *ids])

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
        rows = self.filter(status=Literal(status)).order_by("lane", "id")
        heads = rows.values_list("lane", "id")
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

    def _earlier_than(self, pk: OuterRef) -> Self:
        if connections[self.db].vendor == "sqlite":
            # Once it has statistics SQLite may think that walking the primary key is cheaper,
            # and then read the whole table. A sum it can't look up there.
            return self.alias(place=F("id") + 0).filter(place__lt=pk)
        return self.filter(id__lt=pk)

    def _in_lane(self, lane: str, status: str) -> Self:
        same_lane = {"lane": lane}
        if connections[self.db].vendor == "postgresql":
            # Of `lane = x ORDER BY id` PostgreSQL may think that walking the primary key is
            # cheaper, and then filter every row of the table. A range it can't mistake.
            same_lane = {"lane__gte": lane, "lane__lte": lane}
        found = self.filter(status=Literal(status), **same_lane).order_by("lane", "id")
        if connections[self.db].vendor == "mysql":
            avoid_primary_key(found.query)
        return found


_LOCK = "SELECT id FROM {table} WHERE id IN ({places}) ORDER BY id FOR UPDATE"

_LEASE = "UPDATE {table} SET {columns}, attempt = attempt + 1 WHERE id IN ({places})"

_ATTENDED = """
SELECT EXISTS (SELECT 1 FROM {table} WHERE running_lane = %s)
OR COALESCE((SELECT id FROM {table}{hint} WHERE status = '{waiting}' AND {same_lane}
             ORDER BY lane, id LIMIT 1) < %s, false)
"""
# By the head of the lane: for "is there one with a lower id" they walk the primary key.


@kept
def _candidate(
    kind: type[LeasedQuerySet], model: Any, using: str, status: str, _variant: object
) -> PreparedSelect:
    rows = kind(model, using=using)._in_lane(ANY_LANE, status)
    return PreparedSelect(rows.as_candidates(ANY_LANE).defer(*kind.UNREAD)[:1])


def _is_due() -> Q:
    return Q(run_after__isnull=True) | Q(run_after__lte=now())
