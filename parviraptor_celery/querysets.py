"""Which jobs are which: the only place that filters jobs by state."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import F, Manager, Min, OuterRef, Q, Subquery

from . import attendance, intake, pauses, wakes
from .clock import now
from .exceptions import LaneChanged
from .fencing import AT_REST
from .leased import ANY_LANE
from .pool_querysets import PoolQuerySet
from .prepared import PreparedSelect
from .states import CLAIMABLE, FailurePolicy, JobStatus, Literal

SUPERSEDED = "superseded by job {}"


class JobQuerySet(PoolQuerySet):
    """The rows of a queue, by what can be done with them."""

    def obstacles(self, lane: Any) -> JobQuerySet:
        """Failed jobs that the later ones of ``lane`` wait for; they failed by themselves.

        Those that failed because of another are passed over in the index: when that one is set
        aside, any number of them may be left.
        """
        if self.model.FAILURE_POLICY is FailurePolicy.GO_ON:
            return self.none()
        failed = self._in_lane(lane, JobStatus.FAILED).filter(failed_by__isnull=True)
        if not connections[self.db].features.supports_partial_indexes:
            return failed  # the index that serves every status doesn't know the cause
        return failed.order_by("lane", "failed_by", "id")

    def not_held(self, ids: list[int]) -> JobQuerySet:
        """Those jobs of ``ids`` before which no job of their lane failed."""
        # A subselect with a limit is one look into an index for each; of an anti-join PostgreSQL
        # might make a hash over everything that failed.
        causes = self.obstacles(OuterRef("lane")).filter(id__lt=OuterRef("id"))
        held_by = Subquery(causes.values("id")[:1])
        return self.filter(id__in=ids).annotate(held_by=held_by).filter(held_by__isnull=True)

    def waiting_from(self, lane: str, status: str, first: int) -> JobQuerySet:
        """The rows of ``lane`` in a waiting ``status``, from the id ``first`` on, next first."""
        return self._in_lane(lane, status).filter(id__gte=first)

    def next_apart(self, limit: int) -> list[JobQuerySet]:
        """Return what an independent queue runs next, most urgent first, a queryset for each job.

        A job is in it as long as it may still run.
        """
        if ids := self.next_ids(limit):
            ready = self.filter(~self.paused()).waiting().due()
            return [ready.filter(pk=pk) for pk in ids]
        return self.deferred().apart(limit)

    def give_back_unbegun(self, jobs: list[Any]) -> int:
        """Let leased jobs wait again whose body has not begun; return how many there were.

        Those with a unique key stay leased: another may wait with their key meanwhile.
        """
        ours = [job for job in jobs if job.unique_key is None]
        given_back = 0
        for held, _ in self.model.held_together(ours, self.db):
            given_back += held.filter(begun_at__isnull=True).update(
                status=JobStatus.NEW, waiting_key=None, modification_date=now(), **AT_REST
            )
        return given_back

    def expired(self) -> JobQuerySet:
        # Whose own field can't be read by this process has to be rescued all the same.
        own = [field.name for field in self.model.own_fields()]
        return super().expired().defer(*own, *(self.model.dependent_fields or ()))

    def as_candidates(self, lane: str) -> JobQuerySet:
        """Annotate, besides, ``is_paused``: the queue is, or the lane."""
        return super().as_candidates(lane).annotate(is_paused=self.paused(lane))

    def prepared_head(self, status: str, *more: str) -> PreparedSelect:
        """Return the query for what decides about the candidate, and which row that is.

        With ``more`` of what ``as_candidates()`` annotates.
        """
        rows = self._in_lane(ANY_LANE, status).as_candidates(ANY_LANE)
        return PreparedSelect(
            rows.values("id", "attempt", "is_due", "held_by", "is_paused", *more)[:1]
        )

    def startable(self, heads: dict[str, int]) -> list[str]:
        """Return those lanes whose head is due, that don't run, and that nothing parks."""
        paused = pauses.paused_lanes(self.model, self.db, heads)
        lanes = super().startable({lane: pk for lane, pk in heads.items() if lane not in paused})
        if self.model.FAILURE_POLICY is FailurePolicy.HOLD_LANE:
            return self._not_parked(heads, lanes)
        return lanes

    def deferred(self) -> JobQuerySet:
        """What an independent queue runs when nothing is ready; nothing while paused."""
        return self.filter(~self.paused(), status=Literal(JobStatus.DEFERRED)).due().order_by("id")

    def may_begin(self, lane: str, behind: int) -> bool:
        """Return whether a job of ``lane`` may begin now that one with the id ``behind`` is gone.

        An earlier one than that didn't wait for it, and has a kick of its own.
        """
        about = "id", "is_due", "held_by", "is_paused", "lane_is_running"
        for status in CLAIMABLE:
            head = self._in_lane(lane, status).as_candidates(lane).values(*about).first()
            if head is None or head["id"] < behind:
                continue
            if head["is_paused"] or head["lane_is_running"]:
                return False
            if head["is_due"] and head["held_by"] is None:
                return True
        return False

    def explained(self, pk: int, lane: str) -> Any:
        """Return the job as a candidate of ``lane``, with ``database_time``, or None."""
        return self.filter(pk=pk).as_candidates(lane).annotate(database_time=now()).first()

    def running_in(self, lane: str) -> Any:
        """Return the job of ``lane`` that runs, or None."""
        return self.filter(running_lane=lane).first()

    def failed(self) -> JobQuerySet:
        return self.filter(status=Literal(JobStatus.FAILED))

    def failed_because_of(self, job: Any) -> JobQuerySet:
        """The dependents of ``job``: they are later ones of its lane, which has an index."""
        if job.lane is None:
            return self.none()
        behind = self._in_lane(job.lane, JobStatus.FAILED).filter(id__gt=job.pk)
        return behind.filter(failed_by=job.pk)

    def claimable(self) -> JobQuerySet:
        """Rows that wait, in any of the states that a worker claims from."""
        return self.filter(status__in=CLAIMABLE)

    def without_lane(self, status: str) -> JobQuerySet:
        """Rows of an ordered queue that were inserted past it, such as by a raw fixture."""
        rows = self.filter(lane__isnull=True, status=Literal(status))
        return rows.order_by("lane", "id")

    def in_status(self, status: JobStatus) -> JobQuerySet:
        """Rows in one state: each state that is open has an index of its own."""
        return self.filter(status=Literal(status))

    def with_progress(self) -> JobQuerySet:
        """Running jobs that tell how far they are."""
        return self.filter(
            status=Literal(JobStatus.PROCESSING), progress_done__isnull=False
        ).order_by("id")

    def processed_before(self, moment: datetime) -> JobQuerySet:
        return self.filter(status=Literal(JobStatus.PROCESSED), modification_date__lte=moment)

    def waiting_since(self, moment: datetime) -> JobQuerySet:
        """Jobs that waited already at ``moment``: there by then, and due if it is their first run.

        One that is put back again and again has waited since it was created.
        """
        was_due = Q(run_after__isnull=True) | Q(run_after__lt=moment) | Q(error_count__gt=0)
        return self.waiting().filter(was_due, creation_date__lt=moment)

    def processing_since(self, moment: datetime) -> JobQuerySet:
        return self.filter(status=Literal(JobStatus.PROCESSING), modification_date__lt=moment)

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Insert jobs in bulk; nothing is written if one of them is refused."""
        jobs = list(objs)
        self._refuse_lane_change(kwargs.get("update_fields") or ())
        self._for_write = True
        create = super().bulk_create

        def write() -> list[Any]:
            for job in jobs:
                job._lane_found = job.lane  # no signal is sent, so nothing can change it now
            try:
                created: list[Any] = create(jobs, *args, **kwargs)
            finally:
                for job in jobs:  # those of a batch that was not written have it still
                    job.__dict__.pop("_lane_found", None)
            for job in jobs:
                job.remember()
            return created

        return intake.insert(self.model, self.db, jobs, write)

    def update(self, **columns: Any) -> int:
        """Update as Django does; the key of a waiting job, and the date of the last transition,
        follow a ``status`` that is given.

        Raises:
            LaneChanged: a dependent field is among ``columns``.
            IntegrityError: jobs would wait with a key that another has; nothing was changed.
        """
        self._refuse_lane_change(columns)
        if columns.get("status") in JobStatus.values and "waiting_key" not in columns:
            columns["waiting_key"] = F("unique_key") if columns["status"] in CLAIMABLE else None
        if "status" in columns:
            columns.setdefault("modification_date", now())
        return super().update(**columns)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete as Django does; what waited behind these jobs may begin after the commit.

        Of an ordered queue it costs one question more, and what ``wakes.after_commit`` costs.
        """
        self._for_write = True
        is_for_django = self.query.is_sliced or bool(self.query.combinator)  # which refuses it
        freed = {} if is_for_django else self._lanes_held()
        deleted = super().delete()
        if freed:
            wakes.after_commit(self.model, self.db, freed)
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def bulk_update(self, objs: Any, fields: Any, batch_size: int | None = None) -> int:
        self._refuse_lane_change(fields)
        return super().bulk_update(objs, fields, batch_size)

    def waiting_before(self, lane: str, status: str, end: int) -> JobQuerySet:
        """The rows of ``lane`` in a waiting ``status``, up to the id ``end``, next first."""
        return self._in_lane(lane, status).filter(id__lt=end)

    def newest_due(self, head: Any) -> int | None:
        """Return the id of the last due job of the lane of ``head`` that no failed job holds."""
        waiting = self._in_lane(head.lane, JobStatus.NEW).due().filter(id__gte=head.pk)
        if self.model.FAILURE_POLICY is not FailurePolicy.GO_ON:
            causes = self._in_lane(head.lane, JobStatus.FAILED).filter(failed_by__isnull=True)
            obstacle = causes.filter(id__gt=head.pk).values_list("id", flat=True).first()
            if obstacle is not None:
                waiting = waiting.filter(id__lt=obstacle)
        newest: int | None = waiting.order_by("-lane", "-id").values_list("id", flat=True).first()
        return newest

    def are_waiting_locked(self, ids: set[int]) -> bool:
        """Return whether all these are ``NEW``, and keep them so until the transaction ends."""
        rows = self.waiting().filter(pk__in=ids).order_by("pk")
        if connections[self.db].features.has_select_for_update:
            rows = rows.select_for_update()
        return len(rows.values_list("pk")) == len(ids)

    def with_waiting_key(self, key: str) -> JobQuerySet:
        """The job that waits with this key."""
        return self.filter(waiting_key=key).order_by("pk")

    def keyed_newest_first(self) -> Iterator[Any]:
        """Yield those that have a unique key, read in portions; the newest of each key first."""
        rows, end = self.filter(unique_key__isnull=False), None
        while portion := list((rows.filter(id__lt=end) if end else rows).order_by("-id")[:500]):
            yield from portion
            end = portion[-1].pk

    def supersede(self, newer_id: int) -> int:
        """Squash those of the rows that still wait; return how many."""
        return self.filter(status__in=CLAIMABLE).update(
            status=JobStatus.SQUASHED,
            error_message=SUPERSEDED.format(newer_id),
            waiting_key=None,
            modification_date=now(),
        )

    def _lanes_held(self) -> dict[str, int]:
        """Return the lanes that these jobs hold, with the first that does; only the first lanes.

        What runs is left out: its worker comes to the lane by itself when the body has ended.
        """
        if self.model.dependent_fields is None:
            return {}
        these = self.order_by().values("pk")
        these.query.select_for_update = False
        holds = Q(status__in=CLAIMABLE)
        if self.model.FAILURE_POLICY is not FailurePolicy.GO_ON:
            holds |= Q(status=JobStatus.FAILED, failed_by__isnull=True)
        rows = self.model.rows(self.db).filter(holds, pk__in=these, lane__isnull=False)
        lanes = rows.order_by().values_list("lane").annotate(Min("pk"))
        return dict(lanes[: attendance.BACKLOG + 1])

    def _not_parked(self, heads: dict[str, int], lanes: list[str]) -> list[str]:
        found = list[str]()
        for first in range(0, len(lanes), 500):
            ids = [heads[lane] for lane in lanes[first : first + 500]]
            found += sorted(self.not_held(ids).values_list("lane", flat=True))
        return found

    def _refuse_lane_change(self, columns: Any) -> None:
        fixed = sorted(set(columns) & self.model.dependent_names())
        if fixed:
            raise LaneChanged(
                f"{self.model._meta.label}: {', '.join(fixed)} decide in which lane a job runs "
                "and can't change after the job was created. Create new jobs instead."
            )


JobManager = Manager.from_queryset(JobQuerySet)
