"""What a person may decide about many jobs at once: each verb, of whom, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .exceptions import CauseStillFailed, DuplicateUniqueKey, IllegalTransition

if TYPE_CHECKING:
    from .jobs import AbstractJob
    from .querysets import JobQuerySet

CHUNK = 200
MOST_AT_ONCE = 10_000
"""Jobs that one decision is about; more of them take another one."""


@dataclass(frozen=True)
class Decision:
    """A verb, in words for a page that asks first, and what it does."""

    name: str
    participle: str
    what: str
    """What it is done to, in the plural."""

    effect: str
    concerned: Callable[[JobQuerySet], JobQuerySet]
    """Returns those of some jobs that it can be done to."""

    perform: Callable[[AbstractJob, str], int]
    """Does it to one of them, with the reason given; returns how many it was done to."""

    per_lane: bool = False
    """Whether it is about the lanes of the jobs rather than about the jobs."""

    takes_reason: bool = False

    def of(self, count: int) -> str:
        """Say what it is done to, for a page that asks: ``6 jobs``."""
        jobs = "1 job" if count == 1 else f"{count} jobs"
        return f"the lanes of {jobs}" if self.per_lane else jobs

    def done_to(self, count: int) -> str:
        """Say what was done, in a sentence."""
        noun = "lane" if self.per_lane else "job"
        sentence = f"{count} {noun}{'' if count == 1 else 's'} {self.participle}."
        return sentence if count else f"{sentence} What was selected was left alone."

    def to(self, jobs: JobQuerySet, reason: str = "") -> int:
        """Do it to ``jobs`` by id, at most ``MOST_AT_ONCE``; return how many it was done to.

        Each is a transaction, so a call that is cut short leaves whole jobs decided. What
        somebody else decided meanwhile is left alone.
        """
        done = 0
        for job in self._each(jobs):
            try:
                done += self.perform(job, reason)
            except (IllegalTransition, CauseStillFailed, DuplicateUniqueKey):
                continue
        return done

    def _each(self, jobs: JobQuerySet) -> Iterator[AbstractJob]:
        rows: Any = self.concerned(jobs).order_by("pk")
        last, lanes = 0, set[str | None]()
        for _ in range(MOST_AT_ONCE // CHUNK):
            chunk = list(rows.filter(pk__gt=last)[:CHUNK])
            for job in chunk:
                if not (self.per_lane and job.lane in lanes):
                    lanes.add(job.lane)
                    yield job
            if len(chunk) < CHUNK:
                return
            last = chunk[-1].pk


RETRY = Decision(
    "retry",
    "retried",
    "failed jobs",
    "They wait again, with those that failed because of them, in their old order. A job whose own "
    "cause is still failed is left alone, and so is one while another with its unique key waits.",
    lambda jobs: jobs.failed(),
    lambda job, _: job.retry(),
)
IGNORE = Decision(
    "ignore",
    "ignored",
    "failed jobs",
    "They are set aside and never run; newcomers of their lanes run again.",
    lambda jobs: jobs.failed(),
    lambda job, _: job.ignore(),
)
CANCEL = Decision(
    "cancel",
    "cancelled",
    "waiting jobs",
    "They are set aside and never run; what waits behind them goes on.",
    lambda jobs: jobs.claimable(),
    lambda job, _: job.cancel(),
)
PAUSE_LANE = Decision(
    "pause",
    "paused",
    "lanes of the selected jobs",
    "No job of these lanes is begun any more until they are resumed; what runs may end.",
    lambda jobs: jobs.filter(lane__isnull=False),
    lambda job, reason: job.pause_lane(reason),
    per_lane=True,
    takes_reason=True,
)
RESUME_LANE = Decision(
    "resume",
    "resumed",
    "lanes of the selected jobs",
    "Their jobs run again, unless the whole queue is paused.",
    lambda jobs: jobs.filter(lane__isnull=False),
    lambda job, _: job.resume_lane(),
    per_lane=True,
)
