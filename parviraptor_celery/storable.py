"""Whether a field can store a value: told before the database refuses it, or cuts it silently.

The database's own refusal would come in the middle of the caller's transaction, and break it.
"""

from __future__ import annotations

import functools
from decimal import Decimal
from numbers import Number
from typing import Any

from django.db import connections, models


def problem_with(field: Any, given: object, stored: object) -> str | None:
    """Return why ``field`` can't store ``stored``, which it made of ``given``, or None.

    The problem tells no values. What an engine other than today's would refuse counts too.

    Raises:
        ValidationError: it is no address.
    """
    target = stored_as(field)
    match stored:
        case str():
            return _problem_with_text(target, stored)
        case int():
            if isinstance(given, Number) and given != stored:
                return f"was given a {type(given).__name__} that is no whole number"
            return _problem_with_number(target, stored)
        case Decimal() if isinstance(target, models.DecimalField) and target.max_digits:
            whole = target.max_digits - (target.decimal_places or 0)
            if stored and stored.adjusted() >= whole:
                return f"has more than {whole} digits before the point"
    return None


def stored_as(field: Any) -> Any:
    """Return the field whose kind of column ``field`` has: itself, or what its key refers to."""
    while (target := getattr(field, "target_field", field)) is not field:
        field = target
    return field


def _problem_with_text(field: Any, text: str) -> str | None:
    if isinstance(field, models.GenericIPAddressField):
        field.run_validators(text)  # PostgreSQL has a type of its own for these
    longest = None if isinstance(field, models.TextField) else field.max_length
    if longest is not None and len(text) > longest:
        return f"has {len(text)} characters, {longest} at most can be stored"
    if "\0" in text:
        return "has a NUL in it, which not every database can store"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has half of a surrogate pair in it, which is no text that can be stored"
    return None


def _problem_with_number(field: Any, number: int) -> str | None:
    least, most = _range_of(field.get_internal_type())
    if least is not None and not least <= number <= most:
        return f"must lie between {least} and {most}"
    return None


@functools.cache
def _range_of(kind: str) -> tuple[Any, Any]:
    """Return the least and the greatest number of such a column: the widest of all databases.

    Only MySQL and MariaDB differ, where what is never negative goes twice as far. SQLite, which
    takes any number, counts like the others.
    """
    ranges = [connections[alias].ops.integer_field_ranges.get(kind) for alias in connections]
    known = [found for found in ranges if found is not None]
    if not known:
        return None, None
    return min(least for least, _ in known), max(most for _, most in known)
