"""A job: its columns, how it is enqueued, and the verbs that move it from state to state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar, NoReturn, Self

from django.db import IntegrityError, models, router, transaction
from django.db.models import Q
from django.utils import timezone

from . import kicks
from .backoff import BackoffStrategy
from .clock import now
from .conf import settings
from .exceptions import (
    CauseStillFailed,
    DuplicateUniqueKey,
    TemporaryJobFailure,
    UnknownField,
)
from .guarded import GuardedRow
from .lanes import LANE_LENGTH, LaneField
from .querysets import JobManager, JobQuerySet
from .states import TRANSITIONS, JobStatus


class AbstractJob(GuardedRow):
    """A job: a row of the user's own model. Derive from what ``AbstractJobFactory`` makes.

    The engine writes the columns below; ``process()`` and the rest of the project may write
    all others. Every write of the engine is fenced by ``(id, status, attempt)``: a worker whose
    lease ran out changes nothing.
    """

    BACKOFF_STRATEGY: ClassVar[BackoffStrategy] = BackoffStrategy.EXPONENTIAL
    BACKOFF_STEP_MINUTES: ClassVar[float] = 2
    TEMPORARY_FAILURE_THRESHOLD: ClassVar[int] = 19
    DEFERRED_RETRY_THRESHOLD: ClassVar[int] = 19
    MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS: ClassVar[float | None] = 7
    MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN: ClassVar[float] = 30
    MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN: ClassVar[float] = 960
    atomic: ClassVar[bool] = False
    """Run ``process()`` and record its outcome in one transaction: exactly-once effects there."""

    dependent_fields: ClassVar[list[str] | None] = None
    made_by_factory: ClassVar[bool] = False

    Status = JobStatus
    TRANSITIONS = TRANSITIONS
    LEASED = JobStatus.PROCESSING
    STAMP = "modification_date"
    UNBEGUN: ClassVar[dict[str, Any]] = {"begun_at": None}

    creation_date = models.DateTimeField(default=timezone.now, editable=False)
    modification_date = models.DateTimeField(default=timezone.now, editable=False)
    status = models.CharField(max_length=10, choices=JobStatus, default=JobStatus.NEW)
    error_count = models.PositiveIntegerField(default=0)
    error_message = models.TextField(blank=True, default="")
    error_traceback = models.TextField(blank=True, default="", editable=False)
    run_after = models.DateTimeField(null=True, blank=True)
    priority = models.SmallIntegerField(default=0)
    unique_key = models.CharField(max_length=128, null=True, unique=True, editable=False)  # noqa: DJ001
    lane = LaneField()
    running_lane = models.CharField(  # noqa: DJ001
        max_length=LANE_LENGTH, null=True, unique=True, editable=False
    )
    attempt = models.PositiveIntegerField(default=0, editable=False)
    worker_deaths = models.PositiveSmallIntegerField(default=0, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    leased_by = models.CharField(max_length=100, blank=True, default="", editable=False)
    begun_at = models.DateTimeField(null=True, editable=False)
    failed_by = models.BigIntegerField(null=True, editable=False)

    objects: ClassVar[models.Manager[Any]] = JobManager()

    class Meta:
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                name="%(app_label)s_%(class)s_status",
                condition=Q(status__in=JobStatus.values),
            ),
            models.CheckConstraint(
                name="%(app_label)s_%(class)s_lease",
                condition=Q(status=JobStatus.PROCESSING, lease_until__isnull=False)
                | (
                    ~Q(status=JobStatus.PROCESSING)
                    & Q(lease_until__isnull=True, running_lane__isnull=True)
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.pk} ({self.status})"

    # What the user's class overrides

    def process(self) -> None:
        """Do the work of this job. Fields set on ``self`` are saved with the outcome.

        Raise one of ``parviraptor_celery.exceptions`` to choose an outcome; any other
        exception makes the job ``FAILED``, with its message and traceback.
        """
        raise NotImplementedError(f"{type(self).__name__} has no process() method.")

    def is_processable(self) -> bool:
        """Return False to leave the job waiting, uncounted, and pause its lane for a minute."""
        return True

    def on_job_terminated(self) -> None:
        """Called when ``process_queue`` is told to stop while this job runs, in another thread.

        ``update_job_for_being_resumed()`` may be called here, to hand a long job back.
        """

    # What the user's class calls

    def raise_temporary_failure(self, message: str) -> NoReturn:
        """Give up for now; the job runs again after its back-off."""
        raise TemporaryJobFailure(message, self.error_count)

    def update_job_for_being_resumed(self, db_alias: str | None = None) -> bool:
        """Hand a running job back to its queue at no cost; return whether it was still ours."""
        if db_alias is not None:
            self._state.db = db_alias
        return self.put_back()

    @classmethod
    def enqueue(
        cls,
        *,
        using: str | None = None,
        run_after: datetime | timedelta | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        **fields: Any,
    ) -> Self:
        """Create a job in the caller's transaction and wake a worker when that commits.

        Args:
            using: the database alias; by default where the router writes this model.
            run_after: not before this moment (aware), or this long from now.
            priority: higher runs earlier among the ready jobs of an independent queue.
            unique_key: at most one waiting job of the queue carries this key.
            fields: the fields of the queue's own model.

        Raises:
            UnknownField: the queue has no such field.
            DuplicateUniqueKey: a job with this key is waiting.
        """
        alias = using or router.db_for_write(cls)
        if isinstance(run_after, timedelta):
            run_after = timezone.now() + run_after
        cls._refuse_unknown(fields)
        job = cls(run_after=run_after, priority=priority, unique_key=unique_key, **fields)
        job._insert(alias)
        return job

    @classmethod
    def enqueue_many(cls, jobs: Iterable[Self], *, using: str | None = None) -> list[Self]:
        """Insert ``jobs`` (unsaved instances) in bulk and wake workers when that commits.

        Raises:
            TypeError: one of them is not a job of this queue; nothing is inserted.
            DuplicateUniqueKey: one has the key of a job that is waiting; nothing is inserted.
        """
        alias, new = using or router.db_for_write(cls), list(jobs)
        if stranger := next((job for job in new if type(job) is not cls), None):
            raise TypeError(f"{cls._meta.label}.enqueue_many() was given {stranger!r}.")
        with cls._naming_duplicates(alias, new):
            created = cls.rows(alias).bulk_create(new)
        if created:
            kicks.many_on_commit(cls, alias, created)
        return created

    def retry(self) -> int:
        """Bring a failed job back, with the jobs that failed because of it; return the rows.

        Raises:
            IllegalTransition: the job has not failed.
            CauseStillFailed: the job failed because of an earlier one that is still failed.
        """
        self.expect(JobStatus.FAILED, "retried")
        jobs = self.rows(self.alias)
        if self.failed_by and jobs.failed().filter(pk=self.failed_by).exists():
            raise CauseStillFailed(
                f"{self._meta.label} {self.pk} failed because of job {self.failed_by}. "
                "Retry or ignore that one first."
            )
        fresh = {"error_count": 0, "error_message": "", "error_traceback": "", "failed_by": None}
        with transaction.atomic(using=self.alias):
            rows = int(self.move(JobStatus.NEW, run_after=None, worker_deaths=0, **fresh))
            if rows:
                rows += jobs.failed_because_of(self.pk).update(
                    status=JobStatus.NEW, modification_date=now(), **fresh
                )
            kicks.on_commit(self, self.alias)
        return rows

    def ignore(self) -> bool:
        """Set a failed job aside, so that newcomers of its lane run again."""
        self.expect(JobStatus.FAILED, "ignored")
        with transaction.atomic(using=self.alias):
            kicks.on_commit(self, self.alias)
            return self.move(JobStatus.IGNORED)

    # The verbs of the engine: each is one fenced UPDATE of its own columns

    def claim(self, **columns: Any) -> bool:
        """Lease this job to this process and begin it; False when somebody else was faster."""
        return super().claim(begun_at=now(), unique_key=None, **columns)

    def begin(self) -> bool:
        """Renew the lease of a job claimed in a batch and note that its body starts now."""
        return self.renew(begun_at=now(), unique_key=None)

    def put_back(self, **columns: Any) -> bool:
        """Return a running job to the waiting ones; by itself this counts nothing."""
        return self.rest(JobStatus.NEW, begun_at=None, **columns)

    @classmethod
    def own_fields(cls) -> list[models.Field[Any, Any]]:
        """Return the fields that the user's class added and that a run may change."""
        fixed = {field.name for field in AbstractJob._meta.get_fields()}
        fixed.update(cls.dependent_fields or ())
        return [f for f in cls._meta.concrete_fields if f.name not in fixed and not f.primary_key]

    @classmethod
    def dependent_names(cls) -> set[str]:
        """Return the names, and the columns' names, of the fields that decide about the lane."""
        fields = [cls._meta.get_field(name) for name in cls.dependent_fields or ()]
        return {name for field in fields for name in (field.name, field.attname)}  # type: ignore[union-attr]

    @classmethod
    def lease_seconds(cls) -> float:
        return settings.LEASE_SECONDS

    @classmethod
    def rows(cls, using: str) -> JobQuerySet:
        """Return the rows of this queue in ``using``, whatever managers the user's class has."""
        return JobQuerySet(cls, using=using)

    def _insert(self, alias: str) -> None:
        with self._naming_duplicates(alias, [self]):
            self.save(using=alias, force_insert=True)

    @classmethod
    @contextmanager
    def _naming_duplicates(cls, alias: str, jobs: list[Self]) -> Iterator[None]:
        """Raise DuplicateUniqueKey where inserting ``jobs`` hits the key of a waiting one."""
        keys = [job.unique_key for job in jobs if job.unique_key is not None]
        if not keys:
            yield
            return
        try:
            with transaction.atomic(using=alias):
                yield
        except IntegrityError as error:
            taken = cls.rows(alias).filter(unique_key__in=keys).values_list("unique_key", flat=True)
            named = taken.first() or next((key for key in keys if keys.count(key) > 1), None)
            if named is None:
                raise
            raise DuplicateUniqueKey(
                f"{cls._meta.label}: a job with unique_key={named!r} is waiting already."
            ) from error

    @classmethod
    def _refuse_unknown(cls, fields: dict[str, Any]) -> None:
        known = {name for f in cls._meta.concrete_fields for name in (f.name, f.attname)}
        unknown = sorted(set(fields) - known - set(vars(cls)))
        if unknown:
            own = ", ".join(field.name for field in cls.own_fields()) or "none"
            raise UnknownField(
                f"{cls._meta.label} has no field {', '.join(unknown)}. Its own fields: "
                f"{', '.join([*(cls.dependent_fields or ()), own])}."
            )
