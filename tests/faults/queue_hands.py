"""How one thing is done to both a queue and its model. The rules are in queue_machine.py."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar
from unittest import mock

from django.db import transaction
from hypothesis import note

from parviraptor_celery import kicks, tasks
from parviraptor_celery.dispatch import JobLaneFeed, JobPoolFeed
from parviraptor_celery.drains import Budget
from parviraptor_celery.exceptions import CauseStillFailed, DuplicateUniqueKey, IllegalTransition
from parviraptor_celery.lanes import lane_of
from parviraptor_celery.models import Pause
from parviraptor_celery.states import CLAIMABLE, JobStatus
from parviraptor_celery.test import CrashPointNotReached, crash_at
from tests.faults.machines import HOUR, BesideAModel, InSavepoint, Undone
from tests.faults.queue_model import Job, Kind, Queue
from tests.faults.queue_steps import (
    SUITABLE,
    Decide,
    Enqueue,
    SetPause,
)
from tests.testapp.models import Note


class QueueHands(BesideAModel):
    """Does one thing to both the queue and its model, and finds a job in both."""

    queue: ClassVar[Any]
    kind: ClassVar[Kind]
    lanes_by: ClassVar[tuple[dict[str, Any], ...]]
    """What the dependent fields are in each of the lanes."""

    refusals = (CauseStillFailed, DuplicateUniqueKey, IllegalTransition)

    def __init__(self) -> None:
        super().__init__()
        self.model = Queue(self.kind)
        self.seen: list[tuple[Any, Job]] = []
        self.slow: list[tuple[Any, Job]] = []
        self.unattended: set[str | None] = set()
        """Lanes that only a sweep has to find: a message was lost, a worker died."""

        self.final: dict[int, dict[str, Any]] = {}
        self.questions, self.agreed = itertools.count(), itertools.count()
        self.lanes: list[str | None] = [self._lane_of(values) for values in self.lanes_by]
        self.world.enter_context(self.coming_back(tasks, kicks.PROCESS))
        for table in (self.queue, Note, Pause):
            table._base_manager.using(self.using).all()._raw_delete(self.using)

    @property
    def rows(self) -> Any:
        return self.queue.rows(self.using)

    def _lane_of(self, values: dict[str, Any]) -> str | None:
        if not self.kind.has_lanes:
            return None
        return lane_of(self.queue(**values), self.queue.dependent_fields)

    def _chosen(self, which: int, *statuses: JobStatus) -> tuple[Any, Job]:
        """Return a job as it is in the database, and as it is in the model."""
        jobs = self.model.those(*statuses) or list(self.model.jobs.values())
        job = jobs[which % len(jobs)]
        return self.rows.get(pk=job.id), job

    def _sweep(self, *, dies: bool) -> None:
        self.count("sweep, and die" if dies else "sweep")
        with self._dying("rescued" if dies else None, 1) as crash:
            tasks.dispatch_jobs.run(force=True)
        self.model.rescue()
        self.unattended = set(self.lanes) if crash.has_happened else set()

    def _claim_slowly(self, lane: str | None) -> None:
        self.count("slow worker claims")
        found = self._feed(lane).first()
        if self.kind.has_lanes:
            job = self.model.claim(lane)
        else:
            job = self.model.lease(self.model.batch(1)[0])
        assert job is not None
        assert found.pk == job.id
        self.slow.append((found, job))

    def _feed(self, lane: str | None) -> Any:
        if self.kind.has_lanes:
            return JobLaneFeed(self.rows, lane)  # type: ignore[arg-type]
        return JobPoolFeed(self.rows, 1, Budget.endless())

    def _transact(self, name: str, steps: list[Any], fate: str = "commit") -> None:
        self.count(name)
        before = copy.deepcopy(self.model)
        point = fate if fate in ("enqueued", "committed") else None
        with self._dying(point, 1) as crash, suppress(Undone), transaction.atomic(using=self.using):
            for step in steps:
                self.do(step)
            if fate == "rollback":
                raise Undone
        if fate == "rollback" or (fate == "enqueued" and crash.has_happened):
            self.model = before
        if crash.has_happened:
            self.unattended.update(self.lanes)

    def do(self, step: Any) -> None:
        match step:
            case Enqueue():
                self._enqueue(step)
            case Decide() if self.model.jobs:
                self._decide(step)
            case SetPause(lane=None, verb=verb):
                self._set_pause("", verb)
            case SetPause(lane=lane, verb=verb) if self.queue.dependent_fields:
                self._set_pause(self.lanes[lane], verb)
            case InSavepoint(step=inner):
                self.in_savepoint(inner)

    def _enqueue(self, step: Enqueue) -> None:
        lane = step.lane % len(self.lanes)
        options = {"priority": step.priority, "unique_key": step.key}
        fields = {**self.lanes_by[lane], "script": f"{step.script} x".strip()}
        delay = step.due * HOUR if step.due else None

        def write() -> list[Any]:
            if step.copies == 1:
                return [self.queue.enqueue(using=self.using, run_after=delay, **options, **fields)]
            due = delay and self.clock.now() + delay
            new = [self.queue(run_after=due, **options, **fields) for _ in range(step.copies)]
            return list(self.queue.enqueue_many(new, using=self.using))

        created = self.outcome_of(write)
        is_refused = isinstance(created, str)
        ids = [0] * step.copies if is_refused else [job.pk for job in created]
        due = self.model.now + step.due if step.due else 0
        jobs = [Job(pk, self.lanes[lane], due, step.priority, step.key, step.script) for pk in ids]
        refused = self.outcome_of(lambda: self.model.enqueue(*jobs))
        assert refused == (created if is_refused else None)
        if not is_refused:
            self.seen += [(job, self.model.jobs[job.pk]) for job in created]

    def _decide(self, step: Decide) -> None:
        if step.is_stale and self.seen:
            found, seen = self.seen[step.which % len(self.seen)]
            found = copy.copy(found)
        else:
            found, seen = self._chosen(step.which, *SUITABLE.get(step.verb, ()))
            self.seen.append((copy.copy(found), seen))
        note(f"  # {step.verb} job {seen.id}, seen as {seen.status}")
        if step.verb == "mend":
            self._mend(seen)
        elif step.verb != "delete":
            expected = self.outcome_of(lambda: getattr(self.model, step.verb)(seen))
            assert self.outcome_of(getattr(found, step.verb)) == expected
        elif self.model.is_as(seen) and seen.status != JobStatus.PROCESSING:
            found.delete()
            self.model.delete(seen)
            self.unattended.add(seen.lane)

    def _mend(self, seen: Job) -> None:
        """Let the body of a job succeed from now on."""
        job = self.model.jobs.get(seen.id)
        if job is not None and job.status in (*CLAIMABLE, JobStatus.FAILED):
            self.rows.filter(pk=job.id).update(script="")
            self.model.jobs[job.id] = replace(job, script="")

    def _set_pause(self, lane: str | None, verb: str) -> None:
        values = self.lanes_by[self.lanes.index(lane)] if lane else {}
        was_paused = lane in self.model.pauses
        has_changed = getattr(self.queue, verb)(using=self.using, **values)
        assert has_changed == (was_paused != (verb == "pause"))
        self.model.pauses -= {lane}  # type: ignore[arg-type]
        if verb == "pause":
            self.model.pauses.add(lane)  # type: ignore[arg-type]

    @contextmanager
    def _dying(self, point: str | None, nth: int) -> Iterator[Any]:
        """Die at a crash point, if the block comes there."""
        if point is None:
            yield mock.Mock(has_happened=False)
            return
        with suppress(CrashPointNotReached), crash_at(point, nth=nth) as crash:
            yield crash
