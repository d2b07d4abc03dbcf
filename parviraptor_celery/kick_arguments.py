"""What a message tells a task, checked: whoever can write to the broker can write anything.

Both apps use this module.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from django.db import connections

from .exceptions import UnknownDatabase
from .kicks import MOST_LANES
from .texts import shown

_LANE = re.compile(r"[0-9a-f]{32}")


def require_alias(using: object) -> None:
    """Raise UnknownDatabase unless ``using`` is an alias of ``DATABASES``."""
    if using not in list(connections):
        raise UnknownDatabase(f"{shown(using)} is not an alias of DATABASES here.")


def is_lane(lane: object) -> bool:
    """Return whether ``lane`` looks as lanes do: 32 hexadecimal digits."""
    return isinstance(lane, str) and _LANE.fullmatch(lane) is not None


def sound_lanes(given: Any, about: str, logger: logging.Logger) -> list[str]:
    """Return what is a lane in the argument of a kick; say so if something is none.

    No kick of ours names more than ``MOST_LANES``: of others the sweep finds the rest.
    """
    lanes = given if isinstance(given, list | tuple) else [] if given is None else [given]
    sound = [lane for lane in lanes[:MOST_LANES] if is_lane(lane)]
    if left_alone := len(lanes) - len(sound):
        logger.warning(
            "a kick for %s: %s of its lanes are none, or too many, and were left alone",
            about,
            left_alone,
        )
    return sound
