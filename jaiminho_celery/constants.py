"""Names that users' settings and decorators refer to."""

from __future__ import annotations

from enum import StrEnum

# Characters. They stand here because decorators need them before models can be imported.
STREAM_LENGTH = 100
KEY_LENGTH = 200
NAME_LENGTH = 255
LANE_LENGTH = 32
FINGERPRINT_LENGTH = 16


class PublishStrategyType(StrEnum):
    """When, and in which order, an event is published."""

    PUBLISH_ON_COMMIT = "publish-on-commit"
    """Right after the commit, in the calling process; the relay repeats what failed."""

    KEEP_ORDER = "keep-order"
    """By the relay only, one after another in the order of the stream (and key)."""
