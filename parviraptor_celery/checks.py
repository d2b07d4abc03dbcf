"""System checks: what can be known to be wrong before the first job is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import FieldDoesNotExist
from django.db import models

from . import registry
from .conf import settings
from .connections import connection_problems
from .indexes import StatusIndex
from .lanes import REFUSED_FIELDS
from .models import AbstractJob
from .settings_checks import key_problems, lease_problems, time_zone_problems

APP = "parviraptor_celery"


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
    return [message for queue in registry.all_queues() for message in _check_queue(queue)]


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
    if queue.process is AbstractJob.process:
        yield Error(
            f"{queue._meta.label} has no process() method.",
            obj=queue,
            id="parviraptor_celery.E003",
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
        if isinstance(field, REFUSED_FIELDS):
            yield Error(
                f"{queue._meta.label}.{name} is a {type(field).__name__}: equal values of it "
                "can't be told reliably, so it can't order jobs.",
                hint="Use text, whole numbers, decimals, dates, UUIDs or foreign keys.",
                obj=queue,
                id="parviraptor_celery.E005",
            )


def _check_own_fields(queue: type[AbstractJob]) -> Iterator[CheckMessage]:
    # Django copies an inherited field with its counter; one that the user wrote has a new one.
    ours = {field.name: field.creation_counter for field in AbstractJob._meta.local_fields}
    for field in queue._meta.local_fields:
        if field.name == "using" or ours.get(field.name, field.creation_counter) != (
            field.creation_counter
        ):
            yield Error(
                f"{queue._meta.label}.{field.name} clashes with a name that the queue itself uses.",
                hint="Rename the field.",
                obj=queue,
                id="parviraptor_celery.E006",
            )
    if not isinstance(queue._meta.pk, models.AutoField | models.BigAutoField):
        yield Error(
            f"{queue._meta.label}: jobs run in the order of an automatic whole-number key.",
            hint="Remove the custom primary key.",
            obj=queue,
            id="parviraptor_celery.E007",
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
    return {*indexes, *checks}
