"""Which failures are alike: the group that a dead letter is listed, and decided upon, with."""

from __future__ import annotations

import hashlib
from types import FrameType

from .constants import FINGERPRINT_LENGTH


def fingerprint(name: str, error: BaseException) -> str:
    """Return 16 hexadecimal digits (BLAKE2b-64) that failures alike have in common.

    Alike are errors of one class that the same function raised while the event's registered
    ``name`` was published. The message is left out, since it may hold ids, and so is the line,
    which moves with every release.
    """
    kind = type(error)
    parts = (name, f"{kind.__module__}:{kind.__qualname__}", _raised_in(error))
    framed = "".join(f"{len(part)}:{part}" for part in parts)
    digest_size = FINGERPRINT_LENGTH // 2
    return hashlib.blake2b(
        framed.encode("utf-8", "backslashreplace"), digest_size=digest_size
    ).hexdigest()


def _raised_in(error: BaseException) -> str:
    """Return ``module:qualname`` of the innermost function of the traceback, "" without one."""
    frame: FrameType | None = None
    traceback = error.__traceback__
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
    if frame is None:
        return ""
    return f"{frame.f_globals.get('__name__', '')}:{frame.f_code.co_qualname}"
