"""Unique keys: of the jobs of a queue that wait, at most one has a given key."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, models

from .derived import DerivedField
from .states import CLAIMABLE

KEY_LENGTH = 128
COLUMN = "waiting_key"


def is_taken(error: IntegrityError, queue: type[models.Model]) -> bool:
    """Return whether ``error`` says that another job waited with the key at that moment.

    By the constraint's name, or the column's, which is what SQLite tells. Whether one waits now is
    another question: it may have been claimed since, and then the same write succeeds.
    """
    kin = (queue, *queue._meta.all_parents)
    constraints = [each for model in kin for each in model._meta.constraints]
    names = [each.name for each in constraints if getattr(each, "field", "") == COLUMN]
    return any(name in str(error) for name in (*names, COLUMN))


class WaitingKeyField(DerivedField):
    """The ``unique_key`` of a job while it waits, and NULL otherwise; UNIQUE.

    It is to ``unique_key`` what ``running_lane`` is to ``lane``.
    """

    LENGTH = KEY_LENGTH

    def pre_save(self, model_instance: Any, add: bool) -> str | None:
        waits = model_instance.status in CLAIMABLE
        key: str | None = model_instance.unique_key if waits else None
        setattr(model_instance, self.attname, key)
        return key
