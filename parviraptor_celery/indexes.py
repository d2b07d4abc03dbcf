"""Indexes and constraints over the few rows that are still open, on every engine."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.backends.utils import names_digest, split_identifier
from django.db.models import BooleanField, F, Func, Q
from django.db.models.indexes import Index


class StatusIndex(Index):
    """An index of the rows in one status.

    PostgreSQL and SQLite get a partial index: it stays small however many finished rows the
    table keeps. MySQL and MariaDB have none of these, and get the status as first column;
    there one such index serves every status, so the others (``partial_only``) are left out.
    ``without_lane`` keeps the rows that belong to no lane. ``table`` is filled in by itself.

    >>> StatusIndex(fields=["lane", "id"], status="NEW")
    >>> StatusIndex(fields=["run_after", "id"], status="NEW", without_lane=True)
    """

    suffix = "sti"

    def __init__(
        self,
        *,
        fields: Any = (),
        status: str,
        partial_only: bool = False,
        without_lane: bool = False,
        table: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.status = str(status)
        self.partial_only = partial_only
        self.without_lane = without_lane
        self.table = table
        super().__init__(fields=fields, **kwargs)

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        kwargs["status"] = self.status
        if self.partial_only:
            kwargs["partial_only"] = True
        if self.without_lane:
            kwargs["without_lane"] = True
        if self.table is not None:
            kwargs["table"] = self.table
        return path, args, kwargs

    def set_name_with_model(self, model: type[models.Model]) -> None:
        # Django hashes the columns only; two statuses over the same columns need two names.
        _, table = split_identifier(model._meta.db_table)
        columns = [_column(model, name) for name, _ in self.fields_orders]
        digest = names_digest(table, *columns, self.status, length=6)
        self.name = f"{table[:11]}_{columns[0][:7]}_{digest}_{self.suffix}".lstrip("_0123456789")
        if self.partial_only:
            # With the table the name changes. Of two indexes that differ in their names only,
            # makemigrations renames one, and where it was left out there is nothing to rename:
            # these have to differ in more, so that one is removed and the other added.
            self.table = table

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        if schema_editor.connection.features.supports_partial_indexes:
            kept = Index(fields=self.fields, name=self.name, condition=self._condition())
            return kept.create_sql(model, schema_editor, using, **kwargs)
        if self.partial_only:
            return "DO 0"  # valid, and does nothing
        leading = ["status", "lane"] if self.without_lane else ["status"]
        full = Index(fields=[*leading, *self.fields], name=self.name)
        return full.create_sql(model, schema_editor, using, **kwargs)

    def remove_sql(self, model: Any, schema_editor: Any, **kwargs: Any) -> Any:
        if self.partial_only and not schema_editor.connection.features.supports_partial_indexes:
            return "DO 0"
        return super().remove_sql(model, schema_editor, **kwargs)

    def _condition(self) -> Q:
        condition = Q(status=self.status)
        return condition & Q(lane__isnull=True) if self.without_lane else condition


class OneOf(Func):
    """The condition of a CHECK: ``field`` is one of ``values``, which are plain words.

    PostgreSQL prepares every CHECK of a table anew for each UPDATE, and makes an array of what is
    listed behind IN each time. Here it finds one that is made.

    >>> OneOf("status", "NEW", "DEFERRED")
    """

    template = "%(expressions)s IN ('%(quoted)s')"

    def __init__(self, field: Any, *values: str) -> None:
        if wrong := [value for value in values if not value.isalpha()]:
            raise ValueError(f"{wrong} are not plain words")
        found = {"plain": ",".join(values), "quoted": "', '".join(values)}
        super().__init__(field, output_field=BooleanField(), **found)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "%(expressions)s = ANY ('{%(plain)s}')"
        return super().as_sql(compiler, connection, template=template, **extra)


class UniqueWhileSet(models.UniqueConstraint):
    """Of the rows in which ``field`` is not NULL, no two have the same value in it.

    ``unique=True`` on the field would say the same. But PostgreSQL then gets two indexes with an
    entry for every row and every update of one, while here it gets one, of the few rows that
    count; so does SQLite. MySQL and MariaDB, which have no partial indexes, get a plain one.

    >>> UniqueWhileSet(field="running_lane", name="%(app_label)s_%(class)s_running")
    """

    def __init__(self, *, field: str, name: str, **options: Any) -> None:
        self.field = field
        super().__init__(fields=[field], name=name, **options)

    def deconstruct(self) -> Any:
        path, args, kwargs = super().deconstruct()
        del kwargs["fields"]
        return path, args, {**kwargs, "field": self.field}

    def constraint_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._for(schema_editor).constraint_sql(model, schema_editor)

    def create_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._for(schema_editor).create_sql(model, schema_editor)

    def remove_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._for(schema_editor).remove_sql(model, schema_editor)

    def _for(self, schema_editor: Any) -> models.UniqueConstraint:
        is_set = None
        if schema_editor.connection.features.supports_partial_indexes:
            is_set = Q(**{f"{self.field}__isnull": False})
        return models.UniqueConstraint(fields=[self.field], name=str(self.name), condition=is_set)


def is_leased(status: str) -> Q:
    """Return the condition of a CHECK: what is in ``status``, and only that, has a lease.

    If it belongs to a lane, it is what runs there, so that the uniqueness of that column holds.
    """
    in_no_lane = Q(lane__isnull=True, running_lane__isnull=True)
    in_its_lane = Q(lane__isnull=False, running_lane__isnull=False, running_lane=F("lane"))
    rests = Q(lease_until__isnull=True, running_lane__isnull=True)
    leased = Q(status=status, lease_until__isnull=False)
    return (leased & (in_no_lane | in_its_lane)) | (~Q(status=status) & rests)


def _column(model: type[models.Model], name: str) -> str:
    try:
        return str(model._meta.get_field(name).column)  # type: ignore[union-attr]
    except FieldDoesNotExist:
        return name  # the system check says what is wrong with the class
