"""Queries that are composed once and run many times.

Django composes SQL anew for every queryset. For the few questions that are asked around every
single row that takes ten times as long as the answer, so their SQL is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connections, models


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
        self.columns = [field.attname for field in self.model._meta.concrete_fields]
        self.annotations = list(compiler.annotation_col_map or ())

    def first(self, values: Mapping[str, Any]) -> Any:
        """Return the first object, with the queryset's annotations, or None."""
        connection = connections[self.using]
        with connection.cursor() as cursor:
            cursor.execute(self.sql, [values.get(param, param) for param in self.params])
            row = cursor.fetchone()
        return None if row is None else self._object(list(row), connection)

    def _object(self, row: list[Any], connection: Any) -> Any:
        for position, (convert_functions, expression) in self.converters.items():
            for convert in convert_functions:
                row[position] = convert(row[position], expression, connection)
        width = len(self.columns)
        found = self.model.from_db(self.using, self.columns, row[:width])
        for name, value in zip(self.annotations, row[width:], strict=True):
            setattr(found, name, value)
        return found
