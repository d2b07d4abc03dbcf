from __future__ import annotations

from django.db import models
from parviraptor.models.abstract import AbstractJobFactory

from benchmarks.drivers import ledger


class Independent(AbstractJobFactory.make_base_class(None)):  # type: ignore[misc]
    number = models.IntegerField()

    def process(self) -> None:
        ledger.note(self.number)


class Laned(AbstractJobFactory.make_base_class(["shop"])):  # type: ignore[misc]
    number = models.IntegerField()
    shop = models.IntegerField(db_index=True)

    def process(self) -> None:
        ledger.note(self.number, self.shop)
