"""What the lists of the admin may be filtered by."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import ModelAdmin


class StorableLookups(ModelAdmin):
    """Answers 400 to a filter by what no row can hold: PostgreSQL refuses to look for NUL."""

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        return "\0" not in str(value) and super().lookup_allowed(lookup, value, request)
