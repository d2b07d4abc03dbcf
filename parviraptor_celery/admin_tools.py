"""What the admin pages of both apps share: nothing here counts or sorts a whole table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.functional import cached_property
from django.utils.html import format_html

MOST_COUNTED = 10_000
SHOWN_IN_LISTS = 60
SHOWN_IN_TITLES = 400
LARGEST_ROWS = 20
LARGEST_ID = 2**63 - 1
LONGEST_ID = len(str(LARGEST_ID))


class CappedPaginator(Paginator):
    """Counts no further than ``MOST_COUNTED``: counting a million rows takes seconds."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[:MOST_COUNTED].count())


def one_line(text: str) -> str:
    """Return the beginning of ``text`` for a column of a list; more of it is its tooltip."""
    flat = " ".join(text.split())
    if len(flat) <= SHOWN_IN_LISTS:
        return format_html('<span class="nowrap">{}</span>', flat) if flat else ""
    short, more = f"{flat[:SHOWN_IN_LISTS]}…", flat[:SHOWN_IN_TITLES]
    return format_html('<span class="nowrap" title="{}">{}</span>', more, short)


def long_text(text: str, label: str, *, wraps: bool = True) -> str:
    """Return ``text`` for a form: what the admin would cut off gets a box that scrolls."""
    if len(text) <= SHOWN_IN_LISTS and "\n" not in text:
        return text
    lines = text.count("\n") + 2 + (len(text) // 100 if wraps else 0)
    return format_html(
        '<textarea class="vLargeTextField" rows="{}" cols="80" wrap="{}" aria-label="{}" readonly>'
        "\n{}</textarea>",
        *(min(lines, LARGEST_ROWS), "soft" if wraps else "off", label, text),
    )


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
