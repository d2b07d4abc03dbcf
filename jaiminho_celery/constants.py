"""Names that users' settings and decorators refer to."""

from __future__ import annotations

from enum import StrEnum


class PublishStrategyType(StrEnum):
    """When, and in which order, an event is published."""

    PUBLISH_ON_COMMIT = "publish-on-commit"
    """Right after the commit, in the calling process; the relay repeats what failed."""

    KEEP_ORDER = "keep-order"
    """By the relay only, one after another in the order of the stream (and key)."""
