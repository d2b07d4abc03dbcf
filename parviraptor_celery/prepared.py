"""Queries that are composed once and run many times.

Django composes SQL anew for every queryset. For the few questions that are asked around every
single row that takes ten times as long as the answer, so their SQL is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connections, models

from . import sessions
from .unreadable import UnreadableRow


class PreparedValues:
    """The SQL of a queryset of values, without placeholders."""

    def __init__(self, queryset: Any) -> None:
        self.using = queryset.db
        self.sql, self.params = queryset.query.get_compiler(self.using).as_sql()

    def all(self) -> list[Any]:
        """Return the rows, as tuples of what the database gave."""
        with sessions.cursor(self.using) as cursor:
            cursor.execute(self.sql, self.params)
            return list(cursor.fetchall())


class PreparedSelect:
    """The SQL of a queryset, with placeholders that each run fills in.

    >>> heads = PreparedSelect(Job.objects.filter(lane="<lane>").order_by("id")[:1])
    >>> heads.first({"<lane>": lane})
    """

    def __init__(self, queryset: models.QuerySet[Any, Any]) -> None:
        self.model, self.using = queryset.model, queryset.db
        compiler = queryset.query.get_compiler(self.using)
        self.sql, params = compiler.as_sql()
        self.params = list(params)
        self.converters = compiler.get_converters([column for column, _, _ in compiler.select])
        deferred = queryset.query.deferred_loading[0]
        loaded = [f for f in self.model._meta.concrete_fields if f.name not in deferred]
        self.fields = {field.attname: None for field in loaded}  # from_db() searches in it
        self.columns = [str(field.column) for field in loaded]
        self.annotations = list(compiler.annotation_col_map or ())

    def first(self, values: Mapping[str, Any]) -> Any:
        """Return the first object, with the queryset's annotations, or None."""
        with sessions.cursor(self.using) as cursor:
            cursor.execute(self.sql, self.filled(values))
            row = cursor.fetchone()
        return None if row is None else self.object_of(row)

    def all(self) -> list[Any]:
        """Return all objects, of a query without placeholders.

        Raises:
            UnreadableRow: one of them can't be read.
        """
        with sessions.cursor(self.using) as cursor:
            cursor.execute(self.sql, self.params)
            rows = cursor.fetchall()
        return [self.object_of(row) for row in rows]

    def filled(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the parameters, each placeholder among them replaced by its value."""
        return [values.get(param, param) for param in self.params]

    def object_of(self, values: Sequence[Any]) -> Any:
        """Return the object of a row as the database gave it.

        The columns of the annotations may be missing at its end.

        Raises:
            UnreadableRow: one of its fields refuses what the database holds.
        """
        row = list(values)
        width = len(self.columns)
        try:
            found = self._read(row, width)
        except Exception as error:
            raw = dict(zip(self.fields, values, strict=False))
            raise UnreadableRow(self.model, raw, error) from error
        for name, value in zip(self.annotations, row[width:], strict=False):
            setattr(found, name, value)
        return found

    def _read(self, row: list[Any], width: int) -> Any:
        if self.converters:
            self._convert(row)
        return self.model.from_db(self.using, self.fields, row[:width])

    def _convert(self, row: list[Any]) -> None:
        connection = connections[self.using]
        for position, (convert_functions, expression) in self.converters.items():
            for convert in convert_functions if position < len(row) else ():
                row[position] = convert(row[position], expression, connection)
