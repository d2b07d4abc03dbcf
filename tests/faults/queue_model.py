"""What a queue does, as a dictionary of jobs and an hour: the model of test_queue_machine.py.

It has no database, no races and no messages. Every pause of it is a whole number of hours.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from parviraptor_celery.states import CLAIMABLE, TRANSITIONS, FailurePolicy, JobStatus
from tests.faults.doom import Doom, Refused

NEW, PROCESSING, DEFERRED, FAILED = (
    *(JobStatus.NEW, JobStatus.PROCESSING),
    *(JobStatus.DEFERRED, JobStatus.FAILED),
)
MOST_ERRORS, MOST_DEATHS = 2, 2


@dataclass(frozen=True)
class Kind:
    """What sets one kind of queue apart from the others."""

    has_lanes: bool = True
    policy: FailurePolicy = FailurePolicy.FAIL_DEPENDENTS
    squashes: bool = False
    is_atomic: bool = False
    hands_on: tuple[JobStatus, ...] = CLAIMABLE
    """What may be claimed together with the end of the job before it."""


@dataclass
class Job:
    """One row. Times are hours; ``due`` is 0 for a job that has no due time."""

    id: int
    lane: str | None = None
    due: int = 0
    priority: int = 0
    key: str | None = None
    script: str = ""
    created: int = 0
    since: int = 0
    """When its last transition was."""

    status: JobStatus = NEW
    errors: int = 0
    attempt: int = 0
    deaths: int = 0
    results: int = 0
    cause: int | None = None
    lease: int | None = None
    has_begun: bool = False


@dataclass
class Queue:
    """The jobs that are committed, the pauses, and what bodies have done: the ids, in order."""

    kind: Kind
    jobs: dict[int, Job] = field(default_factory=dict)
    pauses: set[str] = field(default_factory=set)
    effects: list[int] = field(default_factory=list)
    now: int = 0
    doom: Doom = field(default_factory=Doom)

    # What is so

    def those(self, *statuses: JobStatus, **equal: Any) -> list[Job]:
        found = (job for job in self.jobs.values() if job.status in statuses)
        alike = (job for job in found if all(getattr(job, k) == v for k, v in equal.items()))
        return sorted(alike, key=lambda job: job.id)

    def first(self, lane: str | None, status: JobStatus) -> Job | None:
        return next(iter(self.those(status, lane=lane)), None)

    def holder_of(self, key: str | None, but: int = 0) -> Job | None:
        """The job that waits with ``key``."""
        waiting = [] if key is None else self.those(*CLAIMABLE, key=key)
        return next((job for job in waiting if job.id != but), None)

    def obstacle(self, job: Job) -> Job | None:
        """The earlier job of its lane that failed by itself, if that is of any concern."""
        if not self.kind.has_lanes or self.kind.policy is FailurePolicy.GO_ON:
            return None
        failed = self.those(FAILED, lane=job.lane, cause=None)
        return next((cause for cause in failed if cause.id < job.id), None)

    def is_paused(self, lane: str | None) -> bool:
        return bool(self.pauses & {"", lane})

    def is_ready(self, job: Job | None) -> bool:
        return job is not None and job.due <= self.now and self.obstacle(job) is None

    def fails(self, job: Job | None) -> bool:
        """Whether it fails with an earlier one as soon as somebody looks."""
        fails = self.kind.policy is FailurePolicy.FAIL_DEPENDENTS
        return job is not None and fails and self.obstacle(job) is not None

    def newest(self, head: Job) -> Job:
        """The last due job of the lane of ``head`` that no failed one parts from it."""
        failed = self.those(FAILED, lane=head.lane, cause=None)
        end = next((job.id for job in failed if job.id > head.id), float("inf"))
        due = [job for job in self.those(NEW, lane=head.lane) if job.due <= self.now]
        return [job for job in due if head.id <= job.id < end][-1]

    def candidate(self, lane: str | None) -> Job | None:
        """The first job of ``lane`` that would run, or fail, if somebody looked."""
        if self.is_paused(lane):
            return None
        heads = self.first(lane, NEW), self.first(lane, DEFERRED)
        return next((job for job in heads if self.fails(job) or self.is_ready(job)), None)

    def next_of(self, lane: str | None) -> Job | None:
        """The job that a worker who comes now would run first; nothing is changed."""
        if self.kind.has_lanes:
            imagined = copy.deepcopy(self).look(lane)
            return self.jobs[imagined.id] if imagined else None
        return next(iter(self.batch(1)), None)

    def batch(self, limit: int) -> list[Job]:
        """What an independent queue leases: by priority; deferred ones when nothing else is due."""
        if self.is_paused(None):
            return []
        ready = [job for job in self.those(NEW) if job.due <= self.now]
        return (sorted(ready, key=lambda j: (-j.priority, j.id)) or self.those(DEFERRED))[:limit]

    # What workers do

    def move(self, job: Job, to: JobStatus, **changes: Any) -> None:
        assert to in TRANSITIONS[job.status], f"{job.status} can't become {to}"
        self.jobs[job.id] = replace(
            job, status=to, since=self.now, **{"lease": None, "has_begun": False, **changes}
        )

    def wait(self, job: Job, to: JobStatus = NEW, **changes: Any) -> None:
        """Let it wait again; of the jobs with one key that would wait, the newest does."""
        holder = self.holder_of(job.key, but=job.id)
        if holder is not None and holder.id > job.id:
            self.move(job, JobStatus.SQUASHED, **{**changes, "due": 0})
            return
        if holder is not None:
            self.move(holder, JobStatus.SQUASHED)
        self.move(job, to, **changes)

    def look(self, lane: str | None) -> Job | None:
        """Return the job of ``lane`` that is next, after what has to make way has done so."""
        chosen = None if self.those(PROCESSING, lane=lane) else self.candidate(lane)
        if chosen is None:
            return None
        if self.fails(chosen):
            self.fail_from(chosen)
            return self.look(lane)
        if self.kind.squashes and chosen.status == NEW:
            return self.fold(chosen)
        return chosen

    def fold(self, head: Job) -> Job:
        newest = self.newest(head)
        for job in self.those(*CLAIMABLE, lane=head.lane):
            if job.id < newest.id:
                self.move(job, JobStatus.SQUASHED)
        return newest

    def fail_from(self, first: Job) -> None:
        cause = self.obstacle(first)
        assert cause is not None
        for job in self.those(first.status, lane=first.lane):
            if job.id >= first.id:
                self.move(job, FAILED, cause=cause.id)

    def lease(self, job: Job, *, has_begun: bool = True) -> Job:
        leased = {"lease": self.now + 1, "has_begun": has_begun, "attempt": job.attempt + 1}
        self.move(job, PROCESSING, **leased)
        return self.jobs[job.id]

    def claim(self, lane: str | None) -> Job | None:
        return self.lease(found) if (found := self.look(lane)) else None

    def work(self, lanes: list[str], budget: int) -> None:
        """Work off the lanes, in turn, or the whole queue if it has none."""
        if not self.kind.has_lanes:
            self.work_pool(budget)
        for lane in lanes:
            claimed: Job | None = None
            while budget and (job := claimed or self.claim(lane)):
                budget -= 1
                claimed = self.run(job, and_next=budget > 0)
                self.doom.come_by("settled")

    def work_pool(self, budget: int) -> None:
        while budget and (batch := self.batch(budget)):
            leased = [self.lease(job, has_begun=job is batch[0]).id for job in batch]
            for pk, following in zip(leased, [*leased[1:], 0], strict=True):
                self.run(self.jobs[pk])
                if following:
                    self.jobs[following].has_begun = True
                self.doom.come_by("settled")
            budget -= len(batch)

    def run(self, job: Job, *, and_next: bool = False) -> Job | None:
        """Run a claimed job; return the one that was claimed together with its end, if one was."""
        self.doom.come_by("claimed")
        if not self.kind.is_atomic:
            self.effects.append(job.id)
        self.doom.come_by("processed")
        if not self.settle(job):
            return None
        done = self.jobs[job.id]
        if self.kind.is_atomic and done.status == JobStatus.PROCESSED:
            self.effects.append(job.id)
        leaves = done.status in (JobStatus.PROCESSED, JobStatus.IGNORED) or (
            self.kind.policy is FailurePolicy.GO_ON and job.script in ("fail", "invalid")
        )
        is_plain = self.kind.has_lanes and not (self.kind.is_atomic or self.kind.squashes)
        following = self.candidate(job.lane) if and_next and leaves and is_plain else None
        if following is None or self.fails(following) or following.status not in self.kind.hands_on:
            return None
        return self.lease(following)

    def settle(self, job: Job) -> bool:
        """Write how the run of ``job`` ended, if it still belongs to who ran it."""
        if not self.is_as(job):
            return False
        done = replace(job, results=job.results + 1)
        counted = {"errors": job.errors + 1}
        match job.script:
            case "":
                self.move(done, JobStatus.PROCESSED)
            case "ignore":
                self.move(done, JobStatus.IGNORED)
            case "fail" | "invalid":
                self.move(done, FAILED)
            case "unprocessable":
                self.wait(done, due=self.now + 1)
            case _ if job.errors >= MOST_ERRORS:
                self.move(done, FAILED, **counted)
            case "defer":
                self.wait(done, DEFERRED, **counted)
            case "temporary":
                self.wait(done, due=self.now + 1, **counted)
        return True

    def rescue(self) -> None:
        """Give back what dead workers have; a body that killed too many of them fails."""
        expired = [job for job in self.those(PROCESSING) if job.lease <= self.now]  # type: ignore[operator]
        for job in expired:
            deaths = job.deaths + job.has_begun
            if deaths < MOST_DEATHS:
                self.wait(job, deaths=deaths)
            else:
                self.move(job, FAILED, deaths=deaths)

    def clean(self, age: int) -> None:
        for job in self.those(JobStatus.PROCESSED):
            if job.since <= self.now - age:
                del self.jobs[job.id]

    # What people decide; `seen` is the job as they have seen it

    def is_as(self, seen: Job) -> bool:
        job = self.jobs.get(seen.id)
        return job is not None and (job.status, job.attempt) == (seen.status, seen.attempt)

    def enqueue(self, *jobs: Job) -> None:
        keys = [job.key for job in jobs if job.key is not None]
        if len(set(keys)) < len(keys) or any(self.holder_of(key) for key in keys):
            raise Refused("DuplicateUniqueKey")
        for job in jobs:
            self.jobs[job.id] = replace(job, created=self.now, since=self.now)

    def cancel(self, seen: Job) -> bool:
        return self._set_aside(seen, CLAIMABLE)

    def ignore(self, seen: Job) -> bool:
        return self._set_aside(seen, (FAILED,))

    def _set_aside(self, seen: Job, expected: tuple[JobStatus, ...]) -> bool:
        if seen.status not in expected:
            raise Refused("IllegalTransition")
        if is_so := self.is_as(seen):
            self.move(self.jobs[seen.id], JobStatus.IGNORED)
        return is_so

    def retry(self, seen: Job) -> int:
        """Bring a failed job back, and with it those that failed because of it."""
        if seen.status != FAILED:
            raise Refused("IllegalTransition")
        if seen.cause in [job.id for job in self.those(FAILED)]:
            raise Refused("CauseStillFailed")
        if self.holder_of(seen.key, but=seen.id):
            raise Refused("DuplicateUniqueKey")
        if not self.is_as(seen):
            return 0
        fresh = {"errors": 0, "cause": None}
        self.move(self.jobs[seen.id], NEW, due=0, deaths=0, **fresh)
        dependents = self.those(FAILED, cause=seen.id)
        for job in reversed(dependents):
            self.wait(job, **fresh)
        return 1 + sum(self.jobs[job.id].status == NEW for job in dependents)

    def delete(self, seen: Job) -> None:
        self.jobs.pop(seen.id, None)

    # What it says of itself

    def why(self, job: Job) -> tuple[str, int | None]:
        """The code of the reason why ``job`` doesn't run, and the other job that it is about."""
        match job.status:
            case JobStatus.PROCESSING if job.lease <= self.now:  # type: ignore[operator]
                return "lease-ran-out", None
            case JobStatus.PROCESSING:
                return "running" if job.has_begun else "leased", None
            case JobStatus.FAILED:
                return "failed-with-cause" if job.cause else "failed", job.cause
            case JobStatus.NEW | JobStatus.DEFERRED:
                return self.why_it_waits(job)
        return job.status.lower(), None

    def why_it_waits(self, job: Job) -> tuple[str, int | None]:
        lane = job.lane
        if self.is_paused(lane):
            return ("paused-queue" if "" in self.pauses else "paused-lane"), None
        if cause := self.obstacle(job):
            holds = self.kind.policy is FailurePolicy.HOLD_LANE
            return ("held" if holds else "about-to-fail"), cause.id
        if self.kind.has_lanes and (runner := self.first(lane, PROCESSING)):
            return "behind", runner.id
        head = self.first(lane, NEW) if self.kind.has_lanes else next(iter(self.batch(1)), None)
        if self.kind.squashes and head and self.is_ready(head) and (newest := self.newest(head)):
            if job.id < newest.id:
                return "about-to-be-squashed", newest.id
            head = newest
        if job.status == NEW:
            if self.kind.has_lanes and head and head.id < job.id:
                return "behind", head.id
            return ("ready" if job.due <= self.now else "due-later"), None
        if head and head.status == NEW and self.is_ready(head):
            return "deferred", head.id
        first = self.first(lane, DEFERRED)
        if self.kind.has_lanes and first is not job:
            return "behind", first.id  # type: ignore[union-attr]
        return "ready", None
