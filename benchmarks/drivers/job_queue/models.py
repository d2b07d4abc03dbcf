"""The queues: jobs that note their start and do nothing."""

from __future__ import annotations

from typing import Any

from django.db import models

from benchmarks.drivers import ledger
from parviraptor_celery.models import AbstractJobFactory


class Independent(AbstractJobFactory.make_base_class(None)):  # type: ignore[misc]
    number = models.IntegerField()
    shop = models.IntegerField(default=0)

    def process(self) -> None:
        ledger.note(self.number)


class Laned(AbstractJobFactory.make_base_class(["shop"])):  # type: ignore[misc]
    number = models.IntegerField()
    shop = models.IntegerField(default=0)

    def process(self) -> None:
        ledger.note(self.number, self.shop)


class Plain(models.Model):
    """What a user would have without a queue."""

    number = models.IntegerField()
    shop = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"Plain {self.number}"


def bare(queue: type[models.Model], name: str) -> Any:
    """Return a model of the same table that has Django's plain fields and nothing of a queue's."""
    fields = [field for field in queue._meta.concrete_fields if not field.primary_key]
    meta = type("Meta", (), {"managed": False, "db_table": queue._meta.db_table})
    members = {"__module__": __name__, "Meta": meta, "__str__": lambda row: f"{name} {row.pk}"}
    return type(name, (models.Model,), members | {field.name: _plain(field) for field in fields})


def _plain(field: models.Field[Any, Any]) -> models.Field[Any, Any]:
    options = {name: getattr(field, name) for name in ("max_length", "null", "blank", "default")}
    plain: models.Field[Any, Any] = getattr(models, field.get_internal_type())(**options)
    return plain


IndependentTable = bare(Independent, "IndependentTable")
LanedTable = bare(Laned, "LanedTable")
