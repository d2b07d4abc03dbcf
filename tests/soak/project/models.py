"""The queues of the soak, and the facts that say what was committed."""

from __future__ import annotations

import os
import time
from typing import Any

from django.db import models
from django.db.models import F

from parviraptor_celery.models import AbstractJobFactory, BackoffStrategy
from tests.soak import bodies

VERSION = int(os.environ.get("SOAK_VERSION", "2"))
"""Of the code: 1 is what runs before a deploy."""

KINDS = ("lane", "free", "atomic", "new", "announce", "price", "message")
"""Of items; an item is named "kind-…"."""

LANES, KEYS = 20, 5
"""How many lanes the first queue has, and how many all others and the stream."""

UNTIL_IT_RUNS_TWICE = -1.0
"""What the body of a job takes that is meant to overlap with itself."""


class Fact(models.Model):
    """The business row: it exists if and only if the transaction of its item was committed."""

    item = models.CharField(max_length=60, unique=True)
    kind = models.CharField(max_length=20)

    def __str__(self) -> str:
        return self.item


class Counter(models.Model):
    """What the bodies of the atomic queue add to."""

    name = models.CharField(max_length=20, unique=True)
    value = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Worked:
    """A body that takes the time it was given, and breaks as often as it was told."""

    item: Any
    takes: Any
    breaks: Any
    error_count: Any
    BACKOFF_STRATEGY = BackoffStrategy.CONSTANT
    BACKOFF_STEP_MINUTES = 0.005

    def process(self) -> None:
        with bodies.body(self.item, self.noted_lane()):
            self.work()
            if self.error_count < self.breaks:
                self.raise_temporary_failure("meant to be")  # type: ignore[attr-defined]

    def work(self) -> None:
        if self.takes == UNTIL_IT_RUNS_TWICE:
            bodies.await_another(self.item)
        else:
            time.sleep(self.takes)

    def noted_lane(self) -> str:
        """Return the lane by the queue's own field, not by the library's hash."""
        return ""


class LaneJob(Worked, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
    item = models.CharField(max_length=60)
    takes = models.FloatField(default=0)
    breaks = models.IntegerField(default=0)
    shop = models.CharField(max_length=20)

    def noted_lane(self) -> str:
        return f"lane {self.shop}"


class FreeJob(Worked, AbstractJobFactory.make_base_class(dependent_fields=None)):  # type: ignore[misc]
    item = models.CharField(max_length=60)
    takes = models.FloatField(default=0)
    breaks = models.IntegerField(default=0)


class AtomicJob(Worked, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
    item = models.CharField(max_length=60)
    takes = models.FloatField(default=0)
    breaks = models.IntegerField(default=0)
    shop = models.CharField(max_length=20)
    atomic = True

    def work(self) -> None:
        Counter.objects.filter(name=self.shop).update(value=F("value") + 1)
        super().work()

    def noted_lane(self) -> str:
        return f"atomic {self.shop}"


if VERSION >= 2:

    class NewJob(Worked, AbstractJobFactory.make_base_class(dependent_fields=["shop"])):  # type: ignore[misc]
        """A queue that the old version doesn't know."""

        item = models.CharField(max_length=60)
        takes = models.FloatField(default=0)
        breaks = models.IntegerField(default=0)
        shop = models.CharField(max_length=20)

        def noted_lane(self) -> str:
            return f"new {self.shop}"
