"""What the admin pages of both apps share: nothing here counts or sorts a whole table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.functional import cached_property

MOST_COUNTED = 10_000
LARGEST_ID = 2**63 - 1
LONGEST_ID = len(str(LARGEST_ID))


class CappedPaginator(Paginator):
    """Counts no further than ``MOST_COUNTED``: counting a million rows takes seconds."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[:MOST_COUNTED].count())


def id_in(term: str) -> int | None:
    """Return the id that somebody typed, or None."""
    is_number = term.isascii() and term.isdecimal() and len(term) <= LONGEST_ID
    return int(term) if is_number and int(term) <= LARGEST_ID else None


def moment(text: str) -> datetime | None:
    """Return the moment that a form sent, or None for what no page of ours wrote."""
    try:
        found = parse_datetime(text)
        if found is None or timezone.is_aware(found) != settings.USE_TZ:
            return None
        found.astimezone(UTC)  # at the edges of time some have no other zone
    except (ValueError, OverflowError):
        return None
    return found
