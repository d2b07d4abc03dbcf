"""Which jobs are which: the only place that filters jobs by state."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections, models
from django.db.models import Exists, ExpressionWrapper, F, Q, Subquery

from .clock import now
from .exceptions import LaneChanged
from .states import JobStatus

if TYPE_CHECKING:
    from .models import AbstractJob

J = TypeVar("J", bound="AbstractJob")

ANY_LANE = "<lane>"


class JobQuerySet(models.QuerySet[J, J]):
    """The rows of a queue, by what can be done with them."""

    def due(self) -> JobQuerySet[J]:
        """Rows whose due time has come (or that have none), by the database's clock."""
        return self.filter(_is_due())

    def waiting(self) -> JobQuerySet[J]:
        return self.filter(status=JobStatus.NEW)

    def waiting_in(self, lane: str) -> JobQuerySet[J]:
        """The waiting jobs of a lane, next first."""
        # Ordered by lane too: PostgreSQL then takes the lane's index even when its statistics
        # make the primary key look cheaper.
        return self.waiting().filter(lane=lane).order_by("lane", "id")

    def running_in(self, lane: str) -> JobQuerySet[J]:
        return self.filter(running_lane=lane)

    def ready(self) -> JobQuerySet[J]:
        """What an independent queue runs next, the most urgent first."""
        return self.waiting().due().order_by("-priority", "id")

    def deferred(self) -> JobQuerySet[J]:
        return self.filter(status=JobStatus.DEFERRED).order_by("id")

    def causes_in(self, lane: Any) -> JobQuerySet[J]:
        """Failed jobs of a lane that later ones wait for; they failed by themselves."""
        return self.filter(status=JobStatus.FAILED, lane=lane, failed_by__isnull=True)

    def as_candidates(self) -> JobQuerySet[J]:
        """Annotate what decides whether a job may run: ``is_due``, ``held_by`` (an earlier
        job that failed) and ``lane_is_running``."""
        same_table = JobQuerySet(self.model, using=self.db)
        cause = same_table.causes_in(models.OuterRef("lane")).filter(id__lt=models.OuterRef("id"))
        running = same_table.filter(running_lane=models.OuterRef("lane"))
        return self.annotate(
            held_by=Subquery(cause.order_by("lane", "id").values("id")[:1]),
            lane_is_running=Exists(running),
            is_due=ExpressionWrapper(_is_due(), output_field=models.BooleanField()),
        )

    def candidate(self, lane: str, status: JobStatus) -> Any:
        """Return the first job of ``lane`` in ``status``, as a candidate, or None.

        Every claim starts with this question. Composing its SQL takes ten times as long as
        running it, so that is done once for each queue and database.
        """
        sql, params = _candidate_sql(self.model, self.db, status)
        filled = [lane if param == ANY_LANE else param for param in params]
        return next(iter(self.raw(sql, filled)), None)

    def expired(self) -> JobQuerySet[J]:
        """Leased rows whose lease ran out, by the database's clock."""
        return self.filter(status=JobStatus.PROCESSING, lease_until__lt=now()).order_by("id")

    def processed_before(self, moment: datetime) -> JobQuerySet[J]:
        return self.filter(status=JobStatus.PROCESSED, modification_date__lte=moment)

    def locked(self, *, skip: bool = False) -> JobQuerySet[J]:
        """Lock the rows where the engine can; SQLite has one writer and needs no row locks."""
        features = connections[self.db].features
        if not features.has_select_for_update:
            return self
        return self.select_for_update(skip_locked=skip and features.has_select_for_update_skip_locked)

    def lane_heads(self, status: JobStatus, after: str, limit: int) -> Iterator[tuple[str, int]]:
        """Yield ``(lane, id)`` of the first job of each lane in ``status``, lanes in order.

        Starts behind the lane ``after`` and stops after ``limit`` lanes. Each lane costs one
        look into the index, however many jobs wait in it.
        """
        heads = self.filter(status=status).order_by("lane", "id").values_list("lane", "id")
        for _ in range(limit):
            head = heads.filter(lane__gt=after).first()
            if head is None:
                return
            yield head
            after = head[0]

    def update(self, **columns: Any) -> int:
        self._refuse_lane_change(columns)
        return super().update(**columns)

    def bulk_update(self, objs: Any, fields: Any, batch_size: int | None = None) -> int:
        self._refuse_lane_change(fields)
        return super().bulk_update(objs, fields, batch_size)

    def _refuse_lane_change(self, columns: Any) -> None:
        fixed = sorted(set(columns) & set(self.model.dependent_fields or ()))
        if fixed:
            raise LaneChanged(
                f"{self.model._meta.label}: {', '.join(fixed)} decide in which lane a job runs "
                "and can't change after the job was created. Create new jobs instead."
            )


@functools.cache
def _candidate_sql(model: Any, using: str, status: JobStatus) -> tuple[str, tuple[Any, ...]]:
    rows = JobQuerySet(model, using=using).filter(status=status, lane=ANY_LANE)
    query = rows.order_by("lane", "id").as_candidates()[:1].query
    sql, params = query.get_compiler(using).as_sql()
    return sql, tuple(params)


def _is_due() -> Q:
    return Q(run_after__isnull=True) | Q(run_after__lte=now())


def next_attempt() -> F:
    """Return the expression that counts a claim."""
    return F("attempt") + 1
