"""What ``save()`` may write on a job: never the outcome of a run that it didn't see."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from django.core.exceptions import ValidationError
from django.db import models, transaction

from . import attendance, changes, intake, kicks, statements, wakes
from .clock import local_now
from .exceptions import IllegalTransition, LeaseLost, NotANewJob
from .fencing import FencedRow
from .lanes import refuse_another_lane
from .states import CLAIMABLE, JobStatus

BY_HAND = ("status", "error_count", "error_message", "run_after", "priority")
"""Columns of the engine that people may set, in the admin for example."""

_REMEMBERED = (*BY_HAND, "unique_key")


class GuardedRow(FencedRow):
    """A leased row that its users save too, from objects that may be stale."""

    run_after: Any
    _as_begun: Mapping[str, Any]
    """While the job runs here: the user's own values, and the dependent ones, as it began."""

    _is_unattended = False
    """Whether nobody would have come to this new job by themselves, when it was written."""

    class Meta:
        abstract = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not args and (required := self.required_fields()):
            # Read from the database, a row comes with positional arguments.
            self._left_out = [f for f in required if not {f.name, f.attname} & kwargs.keys()]

    @classmethod
    def required_fields(cls) -> tuple[Any, ...]:
        """Return the fields that a new row has to be given."""
        raise NotImplementedError

    @classmethod
    def own_fields(cls) -> list[models.Field[Any, Any]]:
        """Return the fields that the user's class added and that a run may change."""
        raise NotImplementedError

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the user's own columns, and of the engine's only what was changed on this object.

        An object that was read before its job ran would otherwise write the old status back. A
        running job saves its own columns only, and only while it is still leased to us.

        Raises:
            LeaseLost: the job runs here, but its lease ran out and it was taken away.
            LaneChanged: a dependent field was changed.
            InvalidJobOption: what was set of the engine's columns can't be stored, or ``save()``
                wouldn't write it, which goes for ``unique_key``.
            IllegalTransition: ``status`` was set to ``PROCESSING``, or from it to another; or it
                has changed since this object was read.
            NotANewJob: the job runs here, and its key was set to that of another, or to None.
        """
        names = kwargs.get("update_fields")
        if getattr(self, "_is_running_here", False):
            self._save_while_running(names)
            return
        if names is not None and not (names := frozenset(names)):
            return  # as Django does
        is_new = self._state.adding
        if not is_new:
            changes.refuse_options(self, names)
            if names is None:
                names = [field.attname for field in self.own_fields()] + self.changed_by_hand()
            # The lane refuses to change; the key follows the status, if that is written.
            follows = {"waiting_key"} if {"status", "unique_key"} & set(names) else set()
            if "status" in names and self.STAMP not in names:
                setattr(self, self.STAMP, local_now())  # cleaning and monitoring go by it
                follows.add(self.STAMP)
            kwargs["update_fields"] = {*names, "lane", *follows}
        write = functools.partial(super().save, *args, **kwargs)
        using = kwargs.get("using") or self.alias
        if is_new:
            intake.insert(type(self), using, [self], write)
        elif "status" in kwargs["update_fields"]:
            self._write_status(write, using)
        else:
            write()
        self.remember()
        self._wake_after_commit(is_new, set(kwargs.get("update_fields") or ()))

    def _write_status(self, write: Callable[[], None], using: str) -> None:
        """Call ``write`` if the status is still the one that this object was read with.

        Raises:
            IllegalTransition: it is another: the job has run meanwhile, for example.
        """
        read = getattr(self, "_as_stored", {}).get("status", self.status)
        row = self.rows(using).filter(pk=self.pk)
        with transaction.atomic(using=using):
            if not row.filter(status=read).exists_locked():
                present = row.values_list("status", flat=True).first()
                if present is not None:
                    raise IllegalTransition(
                        f"{self._meta.label} {self.pk} was {read} when it was read and is "
                        f"{present} now: read it again, and decide anew."
                    )
            write()

    def _wake_after_commit(self, is_new: bool, written: set[str]) -> None:
        """Wake a worker for this job if it is to run now, or for those behind it if it isn't."""
        if self.status in CLAIMABLE and (is_new or written & {"status", "run_after"}):
            is_unattended = is_new and self._is_unattended
            kicks.on_commit(self, self.alias, due=self.run_after, is_unattended=is_unattended)
        elif self.lane is not None and "status" in written:
            wakes.after_commit(type(self), self.alias, {self.lane: self.pk})

    def _do_insert(
        self, manager: Any, using: str, fields: Any, returning_fields: Any, raw: bool
    ) -> Any:
        """Insert as Django does, which composes the statement anew each time."""
        model = manager.model
        self._is_unattended = False
        if not raw and list(returning_fields) == [model._meta.pk]:
            about = attendance.question_for(self, using)
            if found := statements.insert_saved(self, model, using, fields, *about):
                self._is_unattended = found[1:] == (True,)
                return [found[:1]]
        return super()._do_insert(manager, using, fields, returning_fields, raw)  # type: ignore[misc]

    def clean_fields(self, exclude: Any = None) -> None:
        """Validate the fields, and tell a form which changes ``save()`` would refuse."""
        errors: dict[str, Any] = {}
        try:
            super().clean_fields(exclude)
        except ValidationError as error:
            errors = error.update_error_dict(errors)
        taken = {*errors, *(exclude or ())}
        if errors := {**errors, **changes.as_errors(changes.problems(self), taken)}:
            raise ValidationError(errors)

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Self:
        job = super().from_db(*args, **kwargs)
        job.remember()
        return job

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        super().refresh_from_db(*args, **kwargs)
        self.remember()

    def has_moved(self, to: JobStatus, columns: Mapping[str, Any]) -> None:
        super().has_moved(to, columns)
        self.remember()

    def changed_by_hand(self) -> list[str]:
        """Return which columns of the engine are others on this object than when it was read."""
        if (stored := getattr(self, "_as_stored", None)) is None:
            return []
        return [name for name in BY_HAND if self.__dict__.get(name) != stored[name]]

    def _save_while_running(self, names: Iterable[str] | None) -> None:
        if self.pk != self.claimed_pk:
            raise NotANewJob(
                f"{self._meta.label} {self.claimed_pk} runs and can't be saved as another job. "
                "Use enqueue() to make one like it."
            )
        changes.refuse_key(self)
        refuse_another_lane(self, self._as_begun)
        own = [f for f in self.own_fields() if names is None or {f.name, f.attname} & set(names)]
        columns = {field.attname: field.pre_save(self, False) for field in own}
        if columns and not self.held().update(**columns):
            raise LeaseLost(f"{self._meta.label} {self.pk} is no longer leased to this worker.")

    def remember(self) -> None:
        """Note the columns that people may change, as they are in the database."""
        self._as_stored = {name: self.__dict__.get(name) for name in _REMEMBERED}
