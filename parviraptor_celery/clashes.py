"""Names in a user's queue that would shadow those that the queue itself needs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

from django.db import models

from .jobs import AbstractJob

BODY = (
    *("process", "is_processable", "on_job_terminated", "enqueue", "enqueue_many"),
    *("dependent_fields", "atomic", "STRICT_ORDER", "FAILURE_POLICY", "SQUASH_WAITING_JOBS"),
)
"""What decides about the run of a job; the proxy of a queue has no say in it."""

RESERVED = frozenset({"using", "pause", "resume", "cancel", "why", "set_progress"})
"""Names that fields must not have, whether there is an attribute of that name yet or not."""

FOR_USERS = frozenset(
    {
        *("process", "is_processable", "on_job_terminated", "delete"),
        *("atomic", "dependent_fields", "objects", "made_by_factory"),
        *("Meta", "DoesNotExist", "MultipleObjectsReturned", "NotUpdated"),
    }
)
"""What a user's class is meant to define; so are the attributes in capitals."""

_OURS = tuple(
    base for base in AbstractJob.__mro__ if base.__module__.startswith("parviraptor_celery.")
)
"""The classes that the verbs and the engine's own methods are in."""


def fields_of(queue: type[AbstractJob]) -> Iterator[str]:
    """Yield the names of fields that clash with a column, a verb or an argument of queues."""
    # Django copies an inherited field with its counter; one that the user wrote has a new one.
    ours = {field.name: field.creation_counter for field in AbstractJob._meta.local_fields}
    for field in [*queue._meta.local_fields, *queue._meta.local_many_to_many]:
        if field.name in ours:
            is_theirs = ours[field.name] != field.creation_counter
        else:
            is_theirs = field.name in RESERVED or hasattr(AbstractJob, field.name)
        if is_theirs:
            yield field.name


def attributes_of(queue: type[AbstractJob]) -> Iterator[str]:
    """Yield the names of methods and other attributes that replace those of the engine.

    A method that calls ``super()`` extends the engine's, and may.
    """
    fields = {name for f in queue._meta.get_fields() for name in (f.name, _attname(f))}
    for name in sorted({name for base in _OURS for name in vars(base)} - FOR_USERS - fields):
        if name.startswith("__") or name.isupper():
            continue
        owner = next(base for base in queue.__mro__ if name in vars(base))
        is_theirs = owner not in _OURS and not issubclass(models.Model, owner)
        if is_theirs and not _is_made_here(owner, name) and not _calls_super(vars(owner)[name]):
            yield name


def _attname(field: Any) -> str:
    return str(getattr(field, "attname", field.name))


def _is_made_here(owner: type, name: str) -> bool:
    """Return whether Django, or the factory, put ``name`` into the class."""
    is_of_a_field = isinstance(vars(owner)[name], functools.partialmethod)
    return is_of_a_field or owner.__module__.startswith("parviraptor_celery.") or name == "_meta"


def _calls_super(attribute: Any) -> bool:
    function = inspect.unwrap(getattr(attribute, "__func__", attribute))
    code = getattr(function, "__code__", None)
    return code is not None and "__class__" in code.co_freevars
