"""System checks: what can be known to be wrong before the first job is."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import FieldDoesNotExist
from django.db import models

from . import clashes, registry
from .attribute_checks import check_attributes
from .conf import settings
from .connections import connection_problems
from .indexes import StatusIndex, UniqueWhileSet
from .lanes import problem_of
from .models import AbstractJob
from .querysets import JobQuerySet
from .settings_checks import key_problems, lease_problems, time_zone_problems

APP = "parviraptor_celery"
LONGEST_NAME = 63
"""Of a constraint, in PostgreSQL (bytes)."""

NOT_RUN_BY_A_CALL = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


@register("parviraptor_celery")
def check_settings(**_: Any) -> list[CheckMessage]:
    found = [*key_problems(settings, APP), *time_zone_problems(APP)]
    if not any(settings.problems()):
        found += lease_problems(settings.setting_name, settings.LEASE_SECONDS, APP)
    return found


@register("parviraptor_celery")
def check_connections(**_: Any) -> list[CheckMessage]:
    return list(connection_problems("parviraptor_celery"))


@register("parviraptor_celery")
def check_queues(**_: Any) -> list[CheckMessage]:
    queues, found = registry.all_queues(), list[CheckMessage]()
    for queue in queues:
        is_heir = any(issubclass(parent, AbstractJob) for parent in queue._meta.parents)
        found += _check_heirs(queue) if is_heir else _check_queue(queue)
    for proxy in registry.all_proxies():
        found += _check_heirs(proxy)
    return found


def _check_queue(queue: type[AbstractJob]) -> Iterator[CheckMessage]:
    if not queue.made_by_factory:
        yield Error(
            f"{queue._meta.label} has no dependent_fields: it derives from AbstractJob itself.",
            hint="Derive it from AbstractJobFactory.make_base_class(dependent_fields=…); None "
            "there makes the jobs independent of each other.",
            obj=queue,
            id="parviraptor_celery.E009",
        )
        return
    yield from _check_dependent_fields(queue)
    yield from _check_own_fields(queue)
    yield from _check_meta(queue)
    yield from check_attributes(queue)
    yield from _check_kind(queue)
    yield from _check_body(queue)


def _check_body(queue: type[AbstractJob]) -> Iterator[CheckMessage]:
    if queue.process is AbstractJob.process:
        yield Error(
            f"{queue._meta.label} has no process() method.",
            obj=queue,
            id="parviraptor_celery.E003",
        )
    for name in ("process", "is_processable", "on_job_terminated"):
        if any(is_kind(getattr(queue, name)) for is_kind in NOT_RUN_BY_A_CALL):
            yield Error(
                f"{queue._meta.label}.{name}() is asynchronous or a generator: calling it doesn't "
                "run it, so its jobs would end with nothing done.",
                hint="Make it an ordinary method; asgiref.sync.async_to_sync() calls what is "
                "asynchronous.",
                obj=queue,
                id="parviraptor_celery.E019",
            )


def _check_dependent_fields(queue: type[AbstractJob]) -> Iterator[CheckMessage]:
    for name in queue.dependent_fields or ():
        try:
            field = queue._meta.get_field(name)
        except FieldDoesNotExist:
            known = ", ".join(f.name for f in queue.own_fields())
            yield Error(
                f"{queue._meta.label} depends on {name!r}, which is not one of its fields.",
                hint=f"Its fields: {known or 'none'}.",
                obj=queue,
                id="parviraptor_celery.E004",
            )
            continue
        if misnamed := _misnamed(queue, name, field):
            yield misnamed
        elif problem := problem_of(field):
            yield Error(
                f"{queue._meta.label}.{name} is a {type(field).__name__}: {problem}, so it can't "
                "order jobs.",
                hint="Use text, whole numbers, decimals, dates, UUIDs or foreign keys.",
                obj=queue,
                id="parviraptor_celery.E005",
            )


def _misnamed(queue: type[AbstractJob], name: str, field: Any) -> CheckMessage | None:
    """Return what is wrong with the name of a dependent field that there is, or None."""
    if field.name in clashes.COLUMNS or field.primary_key:
        return Error(
            f"{queue._meta.label} depends on {name!r}, which the queue itself writes.",
            hint="Name fields that the class itself adds.",
            obj=queue,
            id="parviraptor_celery.E021",
        )
    if field.name != name:
        return Error(
            f"{queue._meta.label} depends on {name!r}, which is the column of {field.name!r}.",
            hint=f"Write {field.name!r}.",
            obj=queue,
            id="parviraptor_celery.E020",
        )
    return None


def _check_own_fields(queue: type[AbstractJob]) -> Iterator[CheckMessage]:
    for name in sorted({*clashes.fields_of(queue), *clashes.attributes_of(queue)}):
        yield Error(
            f"{queue._meta.label}.{name} clashes with a name that the queue itself uses.",
            hint="Rename it. A method that extends one of the queue has to call super().",
            obj=queue,
            id="parviraptor_celery.E006",
        )
    key = queue._meta.pk
    is_lasting = isinstance(key, models.AutoField) and not isinstance(key, models.SmallIntegerField)
    if not is_lasting or key.column != "id":
        yield Error(
            f"{queue._meta.label}: jobs run in the order of an automatic whole-number key, and of "
            'one that lasts, in the column "id".',
            hint="Remove the custom primary key, or let it be a BigAutoField, by the app's "
            "default_auto_field for example.",
            obj=queue,
            id="parviraptor_celery.E007",
        )


def _check_kind(queue: type[AbstractJob]) -> Iterator[CheckMessage]:
    if queue.STRICT_ORDER and queue.dependent_fields is None:
        yield Error(
            f"{queue._meta.label} asks for STRICT_ORDER, but its jobs are independent.",
            hint="Name the fields that order them in make_base_class(), [] for one lane.",
            obj=queue,
            id="parviraptor_celery.E014",
        )
    for manager in queue._meta.managers:
        if queue.dependent_fields is None or isinstance(manager.get_queryset(), JobQuerySet):
            continue
        yield Warning(
            f"{queue._meta.label}.{manager.name} knows nothing of queues: its update() would take "
            "jobs out of their lanes unnoticed, and its bulk_create() checks nothing.",
            hint="Derive it from parviraptor_celery.querysets.JobManager, or make it by "
            "Manager.from_queryset() of a subclass of JobQuerySet.",
            obj=queue,
            id="parviraptor_celery.W012",
        )


def _check_heirs(heir: type[AbstractJob]) -> Iterator[CheckMessage]:
    """Look at a model that inherits from a queue with a table: a proxy, or a second table."""
    if not heir._meta.proxy:
        yield Error(
            f"{heir._meta.label} derives from a queue with a table: its jobs would be in two.",
            hint="Derive it from what make_base_class() returns, or let an abstract class hold "
            "what both queues have in common.",
            obj=heir,
            id="parviraptor_celery.E013",
        )
        return
    queue: Any = heir._meta.concrete_model
    own = inspect.getattr_static
    differing = [name for name in clashes.BODY if own(heir, name) is not own(queue, name)]
    if differing:
        yield Error(
            f"{heir._meta.label} is a proxy of {queue._meta.label}, whose jobs run as that one's: "
            f"its own {', '.join(differing)} would never be called.",
            hint=f"Move it to {queue._meta.label}, or make a queue of its own.",
            obj=heir,
            id="parviraptor_celery.E012",
        )


def _check_meta(queue: type[AbstractJob]) -> Iterator[CheckMessage]:
    base = next(parent for parent in queue.__mro__ if "made_by_factory" in vars(parent))
    if _structure(base) - _structure(queue):
        yield Error(
            f"{queue._meta.label}: its class Meta drops the indexes and constraints of the queue.",
            hint="Let it derive from the base's: class Meta(Base.Meta), and extend "
            "Base.Meta.indexes instead of replacing them.",
            obj=queue,
            id="parviraptor_celery.E008",
        )
    names = [item.name for item in (*queue._meta.constraints, *queue._meta.indexes)]
    if too_long := [name for name in names if len(name) > LONGEST_NAME]:
        yield Error(
            f"{queue._meta.label}: {len(too_long)} constraints would have names of more than "
            f"{LONGEST_NAME} characters, which databases cut, or refuse.",
            hint="Shorten the name of the class, or the label of its app.",
            obj=queue,
            id="parviraptor_celery.E018",
        )


def _structure(model: Any) -> set[object]:
    """Return what the indexes and constraints of ``model`` are, without their names."""
    indexes = {
        (index.status, tuple(index.fields))
        for index in model._meta.indexes
        if isinstance(index, StatusIndex)
    }
    checks = {
        repr(constraint.condition)
        for constraint in model._meta.constraints
        if isinstance(constraint, models.CheckConstraint)
    }
    unique = {
        constraint.field
        for constraint in model._meta.constraints
        if isinstance(constraint, UniqueWhileSet)
    }
    return {*indexes, *checks, *unique}
