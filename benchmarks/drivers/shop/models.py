"""The row that a request writes for its own purposes."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    reference = models.IntegerField()

    def __str__(self) -> str:
        return f"Order {self.reference}"
