"""Queues of every kind, for the tests."""

from __future__ import annotations

import threading
from typing import Any

from django.db import models

from parviraptor_celery.exceptions import (
    DeferJob,
    IgnoreJob,
    InvalidJobError,
    UnprocessableJob,
)
from parviraptor_celery.models import AbstractJobFactory, BackoffStrategy, FailurePolicy


class Note(models.Model):
    """Something that a body writes, to see whether it stayed."""

    text = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text


class Scripted:
    """A job whose body does what its ``script`` says."""

    pk: Any
    _state: Any
    script: Any
    result: Any

    def process(self) -> None:
        self.result = (self.result or 0) + 1
        word, _, rest = self.script.partition(" ")
        Note.objects.using(self._state.db).create(text=f"{type(self).__name__} {self.pk}")
        match word:
            case "fail":
                raise ValueError(rest)
            case "invalid":
                raise InvalidJobError(rest)
            case "ignore":
                raise IgnoreJob(rest)
            case "defer":
                raise DeferJob(rest)
            case "unprocessable":
                raise UnprocessableJob(rest)
            case "temporary":
                self.raise_temporary_failure(rest)  # type: ignore[attr-defined]
            case "enqueue":
                type(self).enqueue(using=self._state.db, script=rest)  # type: ignore[attr-defined]


class LaneJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=["shop", "number"])):  # type: ignore[misc]
    script = models.CharField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    shop = models.CharField(max_length=40, default="a")
    number = models.IntegerField(default=0)
    BACKOFF_STEP_MINUTES = 2


class FifoJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=[])):  # type: ignore[misc]
    script = models.CharField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    BACKOFF_STRATEGY = BackoffStrategy.CONSTANT


class FreeJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=None)):  # type: ignore[misc]
    script = models.CharField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    TEMPORARY_FAILURE_THRESHOLD = 2


class HoldJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
    script = models.CharField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    shop = models.CharField(max_length=40, default="a")
    FAILURE_POLICY = FailurePolicy.HOLD_LANE


class GoOnJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
    script = models.CharField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    shop = models.CharField(max_length=40, default="a")
    FAILURE_POLICY = FailurePolicy.GO_ON


class SquashJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
    script = models.CharField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    shop = models.CharField(max_length=40, default="a")
    SQUASH_WAITING_JOBS = True


class AtomicJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
    script = models.CharField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    shop = models.CharField(max_length=40, default="a")
    atomic = True


class TypedJob(
    AbstractJobFactory.make_base_class(  # type: ignore[misc]
        dependent_fields=["text", "amount", "moment", "day", "serial", "count", "flag", "note"]
    )
):
    """A queue whose lanes depend on a field of every usual kind."""

    text = models.CharField(max_length=40, null=True)  # noqa: DJ001
    amount = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    moment = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    serial = models.UUIDField(null=True)
    count = models.IntegerField(null=True)
    flag = models.BooleanField(null=True)
    note = models.ForeignKey(Note, null=True, on_delete=models.CASCADE)

    def process(self) -> None:
        pass


class RequiringJob(AbstractJobFactory.make_base_class(dependent_fields=["shop", "day"])):  # type: ignore[misc]
    """A queue whose dependent fields have no default."""

    shop = models.CharField(max_length=40)
    day = models.DateField()

    def process(self) -> None:
        pass


class StrictJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
    script = models.CharField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    shop = models.CharField(max_length=40, default="a")
    STRICT_ORDER = True


class PickyField(models.CharField):
    """A field that can't read everything that the database may hold, as an enum's could not."""

    def from_db_value(self, value: str | None, *_: Any) -> str | None:
        self.refuse(value)
        return value

    def refuse(self, value: str | None) -> None:
        """Raise what cannot be read; a test may patch it, also where a query is kept already."""
        if value == "unreadable":
            raise LookupError(f"{value} is none of ours")


class PickyLaneJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
    script = PickyField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)
    shop = models.CharField(max_length=40, default="a")


class PickyFreeJob(Scripted, AbstractJobFactory.make_base_class(dependent_fields=None)):  # type: ignore[misc]
    script = PickyField(max_length=100, blank=True, default="")
    result = models.IntegerField(null=True)


class FileJob(AbstractJobFactory.make_base_class(dependent_fields=None)):  # type: ignore[misc]
    """A queue with a file, and with something about it that can't be copied."""

    report = models.FileField(upload_to="reports", blank=True, default="")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.client = threading.Lock()

    def process(self) -> None:
        self.report = "reports/new.txt"


class GeneratedJob(AbstractJobFactory.make_base_class(dependent_fields=[])):  # type: ignore[misc]
    """A queue with a column that the database computes."""

    number = models.IntegerField(default=1)
    twice = models.GeneratedField(
        expression=models.F("number") * 2, output_field=models.IntegerField(), db_persist=True
    )

    def process(self) -> None:
        self.number = 5
        self.save(update_fields=["number"])
        self.refresh_from_db()
