"""What may be changed by hand of a job that there is, and how a form is told what may not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError

from . import intake
from .exceptions import IllegalTransition, InvalidJobOption, QueueError
from .lanes import lane_of, wrong_values
from .states import JobStatus


def refuse_options(job: Any, names: Iterable[str] | None) -> None:
    """Look at those columns of the engine that ``save()`` is to write, ``names`` or what changed.

    Raises:
        InvalidJobOption: one can't be stored; or its key was changed, and is not among ``names``.
        IllegalTransition: it was set running by hand, or its run was ended so.
    """
    if names is None:
        refuse_key(job)
        names = job.changed_by_hand()
        if "status" in names:
            _refuse_transition(job)
    intake.check_options(type(job), job, {*names})


def refuse_key(job: Any) -> None:
    """Raise InvalidJobOption if the key of ``job`` was changed: ``save()`` would leave it out."""
    stored = getattr(job, "_as_stored", None)
    if stored is not None and job.__dict__.get("unique_key") != stored["unique_key"]:
        raise InvalidJobOption(
            f"{job._meta.label} {job.pk}: unique_key is given when a job is created, and save() "
            'does not write it. save(update_fields=["unique_key"]) does.'
        )


def problems(job: Any) -> dict[str, str]:
    """Return what ``save()`` would refuse of ``job``, by the name of the field."""
    found = wrong_values(job, job.dependent_fields or ())
    if not found and not job._state.adding:
        found = _moved(job)
    for name in ("status", "priority", "run_after"):
        try:
            _refuse_option(job, name)
        except QueueError as error:
            found[name] = str(error)
    return found


def as_errors(found: dict[str, str], taken: Iterable[str]) -> dict[str, Any]:
    """Return ``found`` as errors of a form, without those of the fields ``taken``."""
    left_out = set(taken)
    return {name: [ValidationError(said)] for name, said in found.items() if name not in left_out}


def _refuse_option(job: Any, name: str) -> None:
    intake.check_options(type(job), job, {name})
    if name != "status":
        return
    if job._state.adding:
        intake.check_birth(type(job), job)
    elif name in job.changed_by_hand():
        _refuse_transition(job)


def _refuse_transition(job: Any) -> None:
    before = job._as_stored["status"]
    if JobStatus.PROCESSING in (before, job.status):
        raise IllegalTransition(
            f"{job._meta.label} {job.pk} can't be made {job.status} of {before} by hand: only a "
            "worker begins and ends the run of a job."
        )


def _moved(job: Any) -> dict[str, str]:
    """Return which dependent fields are others than in the database; costs a query if any is."""
    names = job.dependent_fields
    if not names or job.lane is None or lane_of(job, names) == job.lane:
        return {}
    fields = [job._meta.get_field(name) for name in names]
    row = job.rows(job.alias).filter(pk=job.pk).values(*names).first() or {}
    problem = "It decides in which lane the job runs and can't change. Create a new job instead."
    return {
        field.name: problem
        for field in fields
        if getattr(job, field.attname) != row.get(field.name)
    }
