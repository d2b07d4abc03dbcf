"""How far a long job has come: noted in memory by its body, written by its heartbeat."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from django.db import connections

from . import signals
from .exceptions import InvalidProgress
from .guarded import GuardedRow
from .texts import storable

MOST = 2**63 - 1
NOTE_LENGTH = 200
NONE: dict[str, Any] = {"progress_done": None, "progress_total": None, "progress_note": ""}


class ProgressRow(GuardedRow):
    """A job that can say how far it has come.

    An abstract model, not a mixin: a mixin would be named in every migration of the users'.
    """

    progress_done: Any
    progress_total: Any
    progress_note: Any
    atomic: ClassVar[bool]

    _hasten: Callable[[], None] | None = None
    _newest: dict[str, Any] | None = None
    _written: dict[str, Any] | None = None
    _is_hastened = False
    _is_announced = False

    class Meta:
        abstract = True

    def set_progress(self, done: int, total: int | None = None, note: str = "") -> None:
        """Say how far ``process()`` has come: ``done`` of ``total``, and a ``note`` for people.

        Cheap, call it as often as you like: it notes the values in memory. The heartbeat writes
        the newest to the row, at most once a second, and the last go out with the outcome.
        Outside of a run the values are only set on this object.

        A ``total`` that turns out to be too small becomes ``done``. A ``note`` of more than 200
        characters is cut; Flower and the pages show it, so it should carry nothing secret.

        Raises:
            InvalidProgress: ``done`` or ``total`` is no whole number, below 0 or beyond 2**63,
                or ``note`` is no text.
        """
        values = checked(done, total, note)
        for name, value in values.items():
            setattr(self, name, value)
        if self._hasten is not None:
            self._newest = values
            self._spread()

    @property
    def progress(self) -> str:
        """How far the job has come, for people: "30 of 100 (30 %), reading"; "" if unknown."""
        return described(self.progress_done, self.progress_total, self.progress_note)

    @contextmanager
    def progressing(self, hasten: Callable[[], None]) -> Iterator[None]:
        """Let progress be written while the block runs; it begins anew.

        ``hasten`` has the heartbeat renew the lease soon, and not only in due time.
        """
        self._is_hastened = self._holds_the_only_writer()
        self._is_announced, self._hasten = False, hasten
        self._newest = self._written = None
        if self.progress_done is not None:
            self._newest = dict(NONE)
            for name, value in NONE.items():
                setattr(self, name, value)
            self._hasten_once()
        try:
            yield
        finally:
            self._hasten = None

    def keep_lease(self) -> bool:
        self.__dict__.pop("_sent", None)
        held = super().keep_lease()
        if held and (sent := self.__dict__.pop("_sent", None)):  # it was not only looked at
            self._written, self._is_hastened = sent, self._holds_the_only_writer()
            if self.unwritten_progress():
                self._hasten_once()  # said meanwhile, when its writing seemed to be under way
        return held

    def renew(self, **columns: Any) -> bool:
        """Extend the lease, and write what is new about the progress; False when it is lost."""
        self._sent = self._newest
        return super().renew(**self.unwritten_progress(), **columns)

    def unwritten_progress(self) -> dict[str, Any]:
        """Return the columns that are to go out with the outcome."""
        newest = self._newest
        return {} if newest is None or newest is self._written else newest

    def _spread(self) -> None:
        self._hasten_once()
        if not self._is_announced:
            self._is_announced = True
            signals.tell(signals.job_progresses, sender=type(self), job=self)

    def _hasten_once(self) -> None:
        if not self._is_hastened and self._hasten is not None:
            self._is_hastened = True
            self._hasten()

    def _holds_the_only_writer(self) -> bool:
        """Return whether the heartbeat could only wait for the body's own transaction."""
        return self.atomic and not connections[self.alias].features.has_select_for_update


def checked(done: object, total: object, note: object) -> dict[str, Any]:
    """Return the columns for what ``set_progress()`` was given.

    Raises:
        InvalidProgress: something of it makes no sense.
    """
    done = _whole_number("done", done)
    if total is not None:
        total = max(_whole_number("total", total), done)
    if not isinstance(note, str):
        raise InvalidProgress(f"set_progress(): note must be a text, not {note!r}.")
    note = storable(note)
    if len(note) > NOTE_LENGTH:
        note = note[: NOTE_LENGTH - 1] + "…"
    return {"progress_done": done, "progress_total": total, "progress_note": note}


def described(done: int | None, total: int | None, note: str) -> str:
    """Return progress as people read it, or "" if there is none."""
    if done is None:
        return ""
    text = str(done)
    if total is not None:
        text += f" of {total}"
    if total:
        text += f" ({100 * done // total} %)"
    return f"{text}, {note}" if note else text


def _whole_number(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise InvalidProgress(
            f"set_progress(): {name} must be a whole number, not {value!r}."
        ) from None
    if not 0 <= number <= MOST:
        raise InvalidProgress(
            f"set_progress(): {name} must be from 0 to {MOST}, and it is {number}."
        )
    return number
