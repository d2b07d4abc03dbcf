"""A job: its columns, how it is enqueued, and the verbs that move it from state to state."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar, NoReturn, Self

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from . import intake, kicks, signals
from .backoff import BackoffStrategy
from .clock import now
from .conf import settings
from .database import alone
from .decided import DecidedRow
from .exceptions import TemporaryJobFailure
from .indexes import OneOf, UniqueWhileSet, is_leased
from .keys import WaitingKeyField
from .lanes import LANE_LENGTH, LaneField, required_fields
from .progress import NOTE_LENGTH
from .querysets import JobManager, JobQuerySet
from .states import CLAIMABLE, TRANSITIONS, FailurePolicy, JobStatus

MOST_ROWS_PER_INSERT = 5_000
"""MariaDB and MySQL take no statement of more than ``max_allowed_packet`` (16 MiB) bytes."""


class AbstractJob(DecidedRow):
    """A job: a row of the user's own model. Derive from what ``AbstractJobFactory`` makes.

    The engine writes the columns below; ``process()`` and the rest of the project may write
    all others. Every write of the engine is fenced by ``(id, status, attempt)``: a worker whose
    lease ran out changes nothing.
    """

    BACKOFF_STRATEGY: ClassVar[BackoffStrategy] = BackoffStrategy.EXPONENTIAL
    BACKOFF_STEP_MINUTES: ClassVar[float] = 2
    BACKOFF_CAP_MINUTES: ClassVar[float | None] = None
    BACKOFF_JITTER: ClassVar[float] = 0
    """The random part that each pause is lengthened by at most: 0.1 is a tenth of the pause."""

    TEMPORARY_FAILURE_THRESHOLD: ClassVar[int] = 19
    DEFERRED_RETRY_THRESHOLD: ClassVar[int] = 19
    MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS: ClassVar[float | None] = 7
    MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN: ClassVar[float] = 30
    MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN: ClassVar[float] = 960
    atomic: ClassVar[bool] = False
    """Run ``process()`` and record its outcome in one transaction: exactly-once effects there."""

    FAILURE_POLICY: ClassVar[FailurePolicy] = FailurePolicy.FAIL_DEPENDENTS
    SQUASH_WAITING_JOBS: ClassVar[bool] = False
    """Run only the newest waiting job of a lane; the older ones become ``SQUASHED``."""

    STRICT_ORDER: ClassVar[bool] = False
    """Commit the jobs of a lane in the order of their ids: writers wait for each other."""

    is_handed_back = False
    """Whether this run gave the job back before its end, so that nothing of it is recorded."""

    dependent_fields: ClassVar[list[str] | None] = None
    made_by_factory: ClassVar[bool] = False

    Status = JobStatus
    FailurePolicy = FailurePolicy
    TRANSITIONS = TRANSITIONS
    LEASED = JobStatus.PROCESSING
    STAMP = "modification_date"
    BEGUN: ClassVar[dict[str, Any]] = {"begun_at": now()}
    UNBEGUN: ClassVar[dict[str, Any]] = {"begun_at": None}

    # No counts of Django's PositiveIntegerField: PostgreSQL prepares the CHECK of each of them for
    # every UPDATE, which took a seventh of the time in which a job ends and the next is claimed.
    creation_date = models.DateTimeField(default=timezone.now, editable=False)
    modification_date = models.DateTimeField(default=timezone.now, editable=False)
    status = models.CharField(max_length=10, choices=JobStatus, default=JobStatus.NEW)
    error_count = models.IntegerField(default=0, validators=[MinValueValidator(0)])
    error_message = models.TextField(blank=True, default="")
    error_traceback = models.TextField(blank=True, default="", editable=False)
    run_after = models.DateTimeField(null=True, blank=True)
    priority = models.SmallIntegerField(default=0)
    unique_key = models.CharField(max_length=128, null=True, editable=False)  # noqa: DJ001
    waiting_key = WaitingKeyField()
    lane = LaneField()
    running_lane = models.CharField(max_length=LANE_LENGTH, null=True, editable=False)  # noqa: DJ001
    attempt = models.IntegerField(default=0, editable=False)
    worker_deaths = models.SmallIntegerField(default=0, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    leased_by = models.CharField(max_length=100, blank=True, default="", editable=False)
    begun_at = models.DateTimeField(null=True, editable=False)
    failed_by = models.BigIntegerField(null=True, editable=False)
    progress_done = models.BigIntegerField(null=True, editable=False)
    progress_total = models.BigIntegerField(null=True, editable=False)
    progress_note = models.CharField(max_length=NOTE_LENGTH, blank=True, default="", editable=False)

    objects: ClassVar[models.Manager[Any]] = JobManager()

    class Meta:
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            UniqueWhileSet(field="running_lane", name="%(app_label)s_%(class)s_running"),
            UniqueWhileSet(field="waiting_key", name="%(app_label)s_%(class)s_waiting"),
            models.CheckConstraint(
                name="%(app_label)s_%(class)s_status",
                condition=OneOf("status", *JobStatus.values),
            ),
            models.CheckConstraint(
                name="%(app_label)s_%(class)s_lease",
                condition=is_leased(JobStatus.PROCESSING),
            ),
            models.CheckConstraint(
                name="%(app_label)s_%(class)s_key",
                condition=Q(OneOf("status", *map(str, CLAIMABLE))) | Q(waiting_key__isnull=True),
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
        """Called when the worker is told to stop while this job runs, in another thread.

        ``update_job_for_being_resumed()`` may be called here, to hand a long job back. Another
        worker may begin it at once, so ``process()`` should come to its end soon.
        """

    # What the user's class calls

    def raise_temporary_failure(self, message: str) -> NoReturn:
        """Give up for now; the job runs again after its back-off."""
        raise TemporaryJobFailure(message, self.error_count)

    def update_job_for_being_resumed(self, db_alias: str | None = None) -> bool:
        """Hand a running job back to its queue at no cost; return whether it was still ours.

        Somebody else is woken for it. What this run does afterwards is not recorded.
        """
        if db_alias is not None:
            self._state.db = db_alias
        is_ours = alone(self.alias, self.put_back, again=self._put_back_again)
        if is_ours:
            self.is_handed_back = True
            signals.tell(signals.job_handed_back, sender=type(self), job=self)
            kicks.on_commit(self, self.alias)
        return is_ours

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
            MissingDependentField: a value that decides about the lane is missing.
            InvalidDependentValue: such a value is none that its field could store.
            InvalidJobOption: ``run_after``, ``priority``, ``unique_key`` or a ``status`` that was
                given can't be stored.
            UnknownDatabase: ``using`` is not an alias of ``DATABASES``.
            DuplicateUniqueKey: a job with this key is waiting.
        """
        alias, due = intake.alias_for(cls, using), intake.due_time(cls, run_after)
        intake.refuse_unknown(cls, fields)
        job = cls(run_after=due, priority=priority, unique_key=unique_key, **fields)
        job.save(using=alias, force_insert=True)
        return job

    @classmethod
    def enqueue_many(cls, jobs: Iterable[Self], *, using: str | None = None) -> list[Self]:
        """Insert ``jobs`` (unsaved instances) in bulk and wake workers when that commits.

        All or none, however many they are: beyond ``MOST_ROWS_PER_INSERT`` rows by several
        statements of one transaction.

        Raises:
            NotANewJob: one of them is not a new job of this queue; nothing is inserted.
            DuplicateUniqueKey: one has the key of a job that is waiting, or of another one of
                these; nothing is inserted.

        And what ``enqueue()`` raises.
        """
        alias, new = intake.alias_for(cls, using), list(jobs)
        intake.refuse_strangers(cls, new)
        created: list[Self] = cls.rows(alias).bulk_create(new, batch_size=MOST_ROWS_PER_INSERT)
        if created:
            kicks.many_on_commit(cls, alias, created)
        return created

    # The verbs of the engine: each is one fenced UPDATE of its own columns

    @classmethod
    def lease_columns(cls) -> dict[str, Any]:
        return {**super().lease_columns(), "waiting_key": None}

    def put_back(self, **columns: Any) -> bool:
        """Return a running job to the waiting ones; by itself this counts nothing."""
        return self.rest(JobStatus.NEW, begun_at=None, **columns)

    def _put_back_again(self) -> bool:
        """Put back when an earlier try may have gone through: then the job waits already."""
        if self.put_back():
            return True
        waits = self.has_come_to(JobStatus.NEW)
        if waits:
            self.has_moved(JobStatus.NEW, {"begun_at": None})
        return waits

    @classmethod
    def required_fields(cls) -> tuple[Any, ...]:
        """Return the dependent fields that have no default and take no NULL."""
        names = cls.dependent_fields
        return required_fields(cls, tuple(names)) if names else ()

    @classmethod
    @functools.cache
    def own_fields(cls) -> list[models.Field[Any, Any]]:
        """Return the fields that the user's class added and that a run may change."""
        fixed = {field.name for field in AbstractJob._meta.get_fields()}
        fixed.update(cls.dependent_fields or ())
        fixed.update(f.name for f in cls._meta.concrete_fields if getattr(f, "generated", False))
        return [f for f in cls._meta.concrete_fields if f.name not in fixed and not f.primary_key]

    @classmethod
    def dependent_names(cls) -> set[str]:
        """Return the names, and the columns' names, of the fields that decide about the lane."""
        fields = [f for f in cls._meta.fields if f.name in (cls.dependent_fields or ())]
        return {name for field in fields for name in (field.name, field.attname)}

    @classmethod
    def lease_seconds(cls) -> float:
        return settings.LEASE_SECONDS

    @classmethod
    def rows(cls, using: str) -> JobQuerySet:
        """Return the rows of this queue in ``using``, whatever managers the user's class has."""
        return JobQuerySet(cls, using=using)
