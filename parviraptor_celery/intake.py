"""What a job has to be before it is written, and how new jobs are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, router
from django.utils import timezone

from . import ordering
from .clock import local_now
from .database import in_transaction
from .exceptions import (
    DuplicateUniqueKey,
    InvalidJobOption,
    NotANewJob,
    UnknownDatabase,
    UnknownField,
)
from .keys import KEY_LENGTH, is_taken
from .lanes import new_lane
from .states import CLAIMABLE, JobStatus
from .texts import shown

T = TypeVar("T")

LEAST_PRIORITY, HIGHEST_PRIORITY = -(2**15), 2**15 - 1
YEARS = range(1000, 10_000)
"""What MySQL and MariaDB can store as the year of a moment; the others can do more."""


def alias_for(queue: Any, using: Any) -> str:
    """Return the alias to write jobs of ``queue`` to: ``using``, or what the router says.

    Raises:
        UnknownDatabase: ``DATABASES`` has no such alias.
    """
    if using is None:
        return router.db_for_write(queue)
    known = list(connections)
    if using not in known:
        raise UnknownDatabase(
            f"{queue._meta.label}: using={using!r} is not an alias of DATABASES, which has "
            f"{', '.join(known)}."
        )
    return str(using)


def due_time(queue: Any, run_after: Any) -> datetime | None:
    """Return ``run_after`` as a moment; a pause counts from now.

    Raises:
        InvalidJobOption: it is neither, is naive or negative, or no database could store it.
    """
    try:
        if isinstance(run_after, timedelta):
            if run_after < timedelta(0):
                raise _wrong(queue, "run_after", "lies in the past: a pause can't be negative")
            run_after = local_now() + run_after
        if run_after is None:
            return None
        if not isinstance(run_after, datetime):
            problem = f"must be a datetime or a timedelta, not a {type(run_after).__name__}"
            raise _wrong(queue, "run_after", problem)
        if timezone.is_naive(run_after):
            raise _wrong(
                queue, "run_after", "is without a time zone; django.utils.timezone.now() has one"
            )
        in_range = run_after.astimezone(UTC).year in YEARS
    except OverflowError:
        in_range = False
    if not in_range:
        raise _wrong(
            queue, "run_after", "is out of range: only the years 1000 to 9999 can be stored"
        )
    return run_after


def refuse_unknown(queue: Any, fields: Iterable[str]) -> None:
    """Raise UnknownField if ``queue`` doesn't have all of ``fields``."""
    known = {name for f in queue._meta.concrete_fields for name in (f.name, f.attname)}
    unknown = sorted(set(fields) - known - queue._meta._property_names - set(vars(queue)))
    if unknown:
        own = ", ".join(field.name for field in queue.own_fields()) or "none"
        raise UnknownField(
            f"{queue._meta.label} has no field {', '.join(unknown)}. Its own fields: "
            f"{', '.join([*(queue.dependent_fields or ()), own])}."
        )


def refuse_others(queue: Any, jobs: Iterable[Any]) -> None:
    """Raise NotANewJob unless all of ``jobs`` are jobs of ``queue``, or of a proxy of it."""
    for job in jobs:
        if type(job) is queue:
            continue
        meta = getattr(job, "_meta", None)
        if meta is None or meta.concrete_model is not queue._meta.concrete_model:
            raise NotANewJob(f"{queue._meta.label} takes jobs of it, not a {type(job).__name__}.")


def refuse_strangers(queue: Any, jobs: Iterable[Any]) -> None:
    """Raise NotANewJob unless all of ``jobs`` are jobs of ``queue`` that were never saved."""
    for job in jobs:
        if type(job) is not queue:
            what = f"a {type(job).__name__}"
        elif not job._state.adding:
            what = f"job {job.pk}, which has been saved already"
        else:
            continue
        raise NotANewJob(f"{queue._meta.label}.enqueue_many() takes new jobs of it, not {what}.")


def check_options(queue: Any, job: Any, names: Collection[str]) -> None:
    """Look at those columns of ``names`` that people may set, of a job that there is.

    What they set to an expression is left to the database.

    Raises:
        InvalidJobOption: one of them can't be stored.
    """
    for name, check in _CHECKS.items():
        if name in names and not hasattr(value := getattr(job, name), "resolve_expression"):
            check(queue, value)


def insert(queue: Any, using: str, jobs: list[Any], write: Callable[[], T]) -> T:
    """Call ``write``, which inserts ``jobs``, and return its result.

    What is wrong with one of them is found out before, so that nothing is written, and that the
    caller's transaction can go on.

    Raises:
        NotANewJob: one of them is of another queue.
        InvalidDependentField: the lane of one of them can't be told.
        InvalidJobOption: one of them has an option that is out of range.
        DuplicateUniqueKey: one has the key of a job that is waiting.
    """
    refuse_others(queue, jobs)
    for job in jobs:
        _check_row(queue, job)
    keys = [
        job.unique_key for job in jobs if job.unique_key is not None and job.status in CLAIMABLE
    ]
    if len(set(keys)) < len(keys):
        raise _duplicate(queue, Counter(keys).most_common(1)[0][0], "is given to two of these jobs")
    is_strict = queue.STRICT_ORDER and queue.dependent_fields is not None
    if not keys and not is_strict:
        return write()

    def hold_and_write() -> T:
        if is_strict:
            ordering.hold(queue, using, [job.lane for job in jobs])
        return write()

    try:
        return in_transaction(using, hold_and_write)
    except IntegrityError as error:
        if (key := _taken_among(keys, queue, using, error)) is None:
            raise
        raise _duplicate(queue, key, "belongs to a job that is waiting") from error


def _taken_among(keys: list[str], queue: Any, using: str, error: IntegrityError) -> str | None:
    """Return the key because of which a write was refused; None if that was not the reason.

    Its job may have been claimed since. All the same it was waiting then, and the next try would
    be another one: within one transaction it could deadlock with somebody who tries likewise.
    """
    taken = queue.rows(using).filter(waiting_key__in=keys).values_list("waiting_key", flat=True)
    if (key := taken.first()) is not None:
        return str(key)
    if not is_taken(error, queue):
        return None
    return next((key for key in keys if key in str(error)), keys[0])


def _check_row(queue: Any, job: Any) -> None:
    """Look at what any way of creating a job may get wrong, and SQLite, say, would take."""
    job.lane = new_lane(job)
    if job.status is not JobStatus.NEW:
        check_birth(queue, job)
    if job.priority.__class__ is not int or not LEAST_PRIORITY <= job.priority <= HIGHEST_PRIORITY:
        _check_priority(queue, job.priority)
    if job.run_after is not None:
        _check_moment(queue, job.run_after)
    if job.unique_key is not None:
        _check_key(queue, job.unique_key)


def check_birth(queue: Any, job: Any) -> None:
    """Raise InvalidJobOption if no job can be inserted in the status of ``job``."""
    _check_status(queue, job.status)
    if job.status == JobStatus.PROCESSING and job.lease_until is None:
        problem = f"can't be {JobStatus.PROCESSING}, which only a worker makes of a job"
        raise _wrong(queue, "status", problem)


def _check_status(queue: Any, status: Any) -> None:
    if status not in JobStatus.values:
        problem = f"must be one of {', '.join(JobStatus.values)}, unlike {shown(status)}"
        raise _wrong(queue, "status", problem)


def _check_priority(queue: Any, priority: Any) -> None:
    if isinstance(priority, bool) or not isinstance(priority, int):
        problem = f"must be a whole number, not a {type(priority).__name__}"
    elif LEAST_PRIORITY <= priority <= HIGHEST_PRIORITY:
        return
    else:
        problem = f"must lie between {LEAST_PRIORITY} and {HIGHEST_PRIORITY}, unlike {priority}"
    raise _wrong(queue, "priority", problem)


def _check_moment(queue: Any, run_after: Any) -> None:
    if run_after is None:
        return
    # Django's field takes texts, days and expressions, too, and warns of what has no time zone.
    if isinstance(run_after, datetime) and timezone.is_aware(run_after):
        due_time(queue, run_after)
    elif isinstance(run_after, timedelta):
        raise _wrong(queue, "run_after", "must be a datetime; enqueue() takes a timedelta, too")
    elif not isinstance(run_after, date) and not hasattr(run_after, "resolve_expression"):
        try:
            queue._meta.get_field("run_after").to_python(run_after)
        except (ValidationError, TypeError) as error:
            problem = f"must be a datetime, not a {type(run_after).__name__} like this"
            raise _wrong(queue, "run_after", problem) from error


def _check_key(queue: Any, key: Any) -> None:
    if key is None:
        return
    if not isinstance(key, str):
        raise _wrong(queue, "unique_key", f"must be a text, not a {type(key).__name__}")
    if not key.strip():
        raise _wrong(queue, "unique_key", "is empty; leave it out, or give None, to have none")
    if len(key) > KEY_LENGTH:
        problem = f"has {len(key)} characters, {KEY_LENGTH} at most can be stored"
        raise _wrong(queue, "unique_key", problem)
    if "\0" in key:
        raise _wrong(queue, "unique_key", "has a NUL in it, which not every database can store")


_CHECKS: dict[str, Callable[[Any, Any], None]] = {
    "status": _check_status,
    "priority": _check_priority,
    "run_after": _check_moment,
    "unique_key": _check_key,
}


def _wrong(queue: Any, option: str, problem: str) -> InvalidJobOption:
    return InvalidJobOption(f"{queue._meta.label}: {option} {problem}.")


def _duplicate(queue: Any, key: str, problem: str) -> DuplicateUniqueKey:
    return DuplicateUniqueKey(f"{queue._meta.label}: unique_key={key!r} {problem} already.")
