"""Error texts that every database can store."""

from __future__ import annotations

import reprlib
import traceback
from datetime import datetime

from django.utils import timezone

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 120


def describe(error: BaseException, *, with_type: bool = False) -> str:
    """Return the message of ``error``, even if it can't be printed or holds NUL or surrogates.

    An error whose text can't be stored would otherwise leave its row as it was, to fail again.
    """
    name = type(error).__qualname__
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be printed)"
    if not message:
        return name
    return storable(f"{name}: {message}" if with_type else message)


def describe_with_traceback(error: BaseException) -> str:
    """Return the traceback of ``error`` as text."""
    try:
        return storable("".join(traceback.format_exception(error)))
    except Exception:
        return describe(error, with_type=True)


def shown(value: object) -> str:
    """Return ``value`` as a message may quote it: short, on one line, and nothing to obey in it."""
    return _shortened.repr(value)


def in_local_zone(moment: datetime) -> datetime:
    """Return ``moment`` in the current time zone, or as it is where that has no such date."""
    try:
        return timezone.localtime(moment) if timezone.is_aware(moment) else moment
    except OverflowError:  # at the edges of time
        return moment


def printable(text: str) -> str:
    """Return ``text`` on one line, with nothing in it that a terminal would obey."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in " ".join(text.split())
    )


def storable(text: str) -> str:
    """Return ``text`` with what PostgreSQL or UTF-8 refuse written as escapes."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
