"""Columns whose value follows from the other ones of their row."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models


class DerivedField(models.CharField):
    """A text or NULL that nobody sets: a subclass computes it in ``pre_save()``.

    Both ``save()`` and ``bulk_create()`` call that. How long it is its class says, so migrations
    don't repeat it.
    """

    LENGTH: ClassVar[int]

    def __init__(self, **kwargs: Any) -> None:
        kwargs.update(max_length=self.LENGTH, null=True, editable=False)
        super().__init__(**kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        for fixed in ("max_length", "null", "editable"):
            kwargs.pop(fixed, None)
        return name, path, args, kwargs
