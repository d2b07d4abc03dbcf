"""For tests: which bodies ran, from when until when, and whether that was in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from .exceptions import DeferJob
from .jobs import AbstractJob


@dataclass(frozen=True)
class Body:
    """One call of ``process()``: of which job, in which lane, from when until when (seconds)."""

    pk: int
    lane: str | None
    begun: float
    ended: float
    using: str = "default"
    is_deferred: bool = False
    """Whether it ended with ``DeferJob``, after which others of the lane may overtake the job."""


@contextmanager
def recorded_bodies(job_class: type[AbstractJob]) -> Iterator[list[Body]]:
    """Record every call of ``job_class.process()`` inside the block."""
    bodies: list[Body] = []
    process, guard = job_class.process, threading.Lock()

    def recording(self: AbstractJob) -> None:
        begun, is_deferred = time.monotonic(), False
        try:
            process(self)
        except DeferJob:
            is_deferred = True
            raise
        finally:
            ended = time.monotonic()
            with guard:
                bodies.append(Body(self.pk, self.lane, begun, ended, self.alias, is_deferred))

    with mock.patch.object(job_class, "process", recording):
        yield bodies
    bodies.sort(key=lambda body: body.begun)


def disorder(bodies: list[Body], late: Collection[int] = ()) -> str | None:
    """Return what is wrong with the order in which ``bodies`` began and ended, or None.

    Within a lane no two may overlap, and none may come after one with a higher id: but for jobs
    that were deferred, and for those in ``late``, ids that were not there from the beginning.
    (One that commits late with a lower id runs next.)
    """
    last: dict[tuple[str, str], Body] = {}
    highest: dict[tuple[str, str], Body] = {}
    deferred = {(body.using, body.pk) for body in bodies if body.is_deferred}
    for body in sorted(bodies, key=lambda item: item.begun):
        if body.lane is None:
            continue
        lane = body.using, body.lane
        if (previous := last.get(lane)) and body.begun < previous.ended:
            return f"{body} and {previous} overlap"
        last[lane] = body
        if body.pk in late or (body.using, body.pk) in deferred:
            continue
        if (before := highest.get(lane)) and body.pk < before.pk:
            return f"{body} ran after {before}"
        highest[lane] = body
    return None
