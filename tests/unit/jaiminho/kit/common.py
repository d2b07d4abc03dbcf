"""What these tests share."""

from __future__ import annotations

from tests.testapp import outbox as functions


def names() -> list[str]:
    """The functions that ran."""
    return [name for name, _, _ in functions.calls]
