"""Queues of every kind, for the tests."""

from __future__ import annotations

from typing import Any

from django.db import models

from parviraptor_celery.exceptions import (
    DeferJob,
    IgnoreJob,
    InvalidJobError,
    UnprocessableJob,
)
from parviraptor_celery.models import AbstractJobFactory, BackoffStrategy


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
