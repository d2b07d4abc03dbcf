"""Makes the base class of a queue, with the indexes that its kind needs."""

from __future__ import annotations

from typing import Any

from django.db import models

from .exceptions import InvalidDependentField
from .indexes import StatusIndex
from .jobs import AbstractJob
from .states import JobStatus


class AbstractJobFactory:
    """Makes the base class of a queue."""

    @staticmethod
    def make_base_class(dependent_fields: list[str] | None) -> type[AbstractJob]:
        """Return the abstract base for a queue.

        Args:
            dependent_fields: ``None``: the jobs are independent of each other. ``[]``: one job
                at a time, in order. Names of fields: jobs with equal values in them run one at
                a time, in order.

        >>> class Export(AbstractJobFactory.make_base_class(dependent_fields=["shop"])):
        ...     shop = models.CharField(max_length=40)
        """
        names = _field_names(dependent_fields)
        kind = _INDEPENDENT if names is None else _ORDERED

        class DerivedJob(AbstractJob):
            dependent_fields = names
            made_by_factory = True

            class Meta(AbstractJob.Meta):
                abstract = True
                indexes = kind

        return DerivedJob


def _field_names(given: Any) -> list[str] | None:
    if given is None:
        return None
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        return list(given)
    raise InvalidDependentField(
        f"dependent_fields must be None or a list of field names, not {given!r}."
    )


_ORDERED: list[models.Index] = [
    StatusIndex(fields=["lane", "id"], status=JobStatus.NEW),
    StatusIndex(fields=["lane", "failed_by", "id"], status=JobStatus.FAILED, partial_only=True),
    StatusIndex(fields=["lane", "id"], status=JobStatus.DEFERRED, partial_only=True),
    StatusIndex(fields=["id"], status=JobStatus.PROCESSING),
    StatusIndex(fields=["modification_date"], status=JobStatus.PROCESSED),
]
_INDEPENDENT: list[models.Index] = [
    StatusIndex(fields=["run_after", "-priority", "id"], status=JobStatus.NEW),
    StatusIndex(fields=["id"], status=JobStatus.DEFERRED),
    StatusIndex(fields=["id"], status=JobStatus.FAILED, partial_only=True),
    StatusIndex(fields=["id"], status=JobStatus.PROCESSING, partial_only=True),
    StatusIndex(fields=["modification_date"], status=JobStatus.PROCESSED),
]
