"""Which jobs are which: the only place that filters jobs by state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Manager, OuterRef

from .exceptions import LaneChanged
from .leased import LeasedQuerySet
from .states import JobStatus


class JobQuerySet(LeasedQuerySet):
    """The rows of a queue, by what can be done with them."""

    WAITING = JobStatus.NEW
    LEASED = JobStatus.PROCESSING

    def obstacles(self) -> JobQuerySet:
        """Failed jobs that later ones wait for; they failed by themselves."""
        return self.filter(status=JobStatus.FAILED, lane=OuterRef("lane"), failed_by__isnull=True)

    def ready(self) -> JobQuerySet:
        """What an independent queue runs next, the most urgent first."""
        return self.waiting().due().order_by("-priority", "id")

    def deferred(self) -> JobQuerySet:
        return self.filter(status=JobStatus.DEFERRED).order_by("id")

    def failed(self) -> JobQuerySet:
        return self.filter(status=JobStatus.FAILED)

    def failed_because_of(self, job_id: int) -> JobQuerySet:
        return self.failed().filter(failed_by=job_id)

    def processed_before(self, moment: datetime) -> JobQuerySet:
        return self.filter(status=JobStatus.PROCESSED, modification_date__lte=moment)

    def processing_since(self, moment: datetime) -> JobQuerySet:
        return self.filter(status=JobStatus.PROCESSING, modification_date__lt=moment)

    def update(self, **columns: Any) -> int:
        self._refuse_lane_change(columns)
        return super().update(**columns)

    def bulk_update(self, objs: Any, fields: Any, batch_size: int | None = None) -> int:
        self._refuse_lane_change(fields)
        return super().bulk_update(objs, fields, batch_size)

    def _refuse_lane_change(self, columns: Any) -> None:
        fixed = sorted(set(columns) & self.model.dependent_names())
        if fixed:
            raise LaneChanged(
                f"{self.model._meta.label}: {', '.join(fixed)} decide in which lane a job runs "
                "and can't change after the job was created. Create new jobs instead."
            )


JobManager = Manager.from_queryset(JobQuerySet)
