"""What processes do with jobs, for deaths at each step of it; and what has to come of that."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path as File
from typing import Any

from django.db import OperationalError, transaction

from parviraptor_celery import cleanup, sweep, tasks
from parviraptor_celery.clock import from_now, local_now
from parviraptor_celery.database import alone
from parviraptor_celery.exceptions import DeferJob, DuplicateUniqueKey, IgnoreJob
from parviraptor_celery.kicks import PROCESS
from parviraptor_celery.models import Tick
from tests.faults.crashes import Path, World
from tests.faults.forks import Child, Fault, Way
from tests.faults.history import History
from tests.faults.steps import Step
from tests.testapp.models import (
    AtomicJob,
    FifoJob,
    FreeJob,
    HoldJob,
    LaneJob,
    Note,
    SquashJob,
    StrictJob,
)

OPEN = ("NEW", "DEFERRED", "PROCESSING")
KEY, HOURS = "nightly", timedelta(hours=9)


class QueueWorld(World):
    """One queue. The field ``script`` of a job is its name in the ledger, ":" and a word."""

    def __init__(self, using: str, folder: File, queue: Any = FifoJob) -> None:
        super().__init__(using, folder)
        self.queue = queue

    @property
    def rows(self) -> Any:
        return self.queue.rows(self.using)

    def jobs(self) -> dict[str, Any]:
        """Return the jobs by their names."""
        return {name_of(job): job for job in self.rows.order_by("id")}

    def enqueue(self, *scripts: str, **options: Any) -> list[Any]:
        """Enqueue jobs in one transaction, and tell the ledger."""
        for script in scripts:
            self.ledger.note("intended", script.partition(":")[0])
        with transaction.atomic(using=self.using):
            jobs = [
                self.queue.enqueue(using=self.using, script=script, **options) for script in scripts
            ]
        for script in scripts:
            self.ledger.note("committed", script.partition(":")[0])
        return jobs

    def process(self, job: Any) -> None:
        """Be the body of every job."""
        name = name_of(job)
        self.come_by(Step("body", f"the body of {name}"), lambda: self._process(job, name))

    def _process(self, job: Any, name: str) -> None:
        word, is_first = job.script.partition(":")[2], not job.error_count
        lane = "" if word == "defer" else job.lane or ""  # a deferred job may be overtaken
        self.ledger.note("began", name, lane)
        with contextlib.suppress(OperationalError):  # it is there, and only the answer was lost
            Note.objects.using(self.using).create(text=name)
        if word == "temporary" and is_first:
            self.ledger.note("broke", name, lane)
            job.raise_temporary_failure("away")
        if word == "defer" and is_first:
            self.ledger.note("broke", name, lane)
            raise DeferJob("later")
        if word == "resume" and job.attempt == 1:
            self.ledger.note("broke", name, lane)
            job.update_job_for_being_resumed()
            return
        if word == "meet" and is_first:
            self._put_back_the_other(job)
            self.ledger.note("broke", name, lane)
            job.raise_temporary_failure("met another")
        self.ledger.note("ended", name, lane)
        if word == "fail":
            raise ValueError("wrong")
        if word == "ignore":
            raise IgnoreJob("never mind")

    def _put_back_the_other(self, job: Any) -> None:
        """Be the worker of the other job with the same key, which is to wait for hours."""
        others = self.rows.filter(unique_key=KEY, status="PROCESSING").exclude(pk=job.pk)
        for other in alone(self.using, lambda: list(others.all())):
            other.put_back(run_after=from_now(HOURS))

    def deliver(self) -> None:
        """Be the worker that takes every message, and those that this makes."""
        while self.kicks:
            kick = dict(self.kicks.pop(0))
            kick.pop("countdown", None)
            task = {PROCESS: tasks.process_jobs}.get(kick.pop("task"), tasks.dispatch_jobs)
            task.apply(kwargs=kick, throw=True)

    def tidy(self) -> None:
        for rows in (self.rows, Note.objects.using(self.using), Tick.objects.using(self.using)):
            rows.all().delete()

    def note_arranged(self) -> None:
        self.before = self.jobs()

    def note_left(self, child: Child) -> None:
        left = self.jobs()
        self.left = {name: job.status for name, job in left.items()}
        self.begun = [
            name
            for name, job in left.items()
            if job.begun_at is not None
            and job.status == "PROCESSING"
            and (name not in self.before or job.attempt > self.before[name].attempt)
        ]

    def work(self) -> None:
        self.deliver()
        sweep.rescue(self.queue, self.using)
        sweep.kick_waiting(self.queue, self.using)
        self.deliver()

    def is_open(self) -> bool:
        return bool(self.rows.filter(status__in=OPEN).exists())

    def problems(self, path: Path, child: Child, fault: Fault | None) -> Iterator[str]:
        jobs, lost = self.jobs(), fault is not None and fault.way is Way.LOST
        yield from self._of_rows(path, jobs)
        yield from self._of_deaths(path, jobs)
        yield from self._of_bodies(path, jobs, repeats=0 if lost or not fault else path.repeats)
        if len(self.begun) > 1:
            yield f"more than one of its jobs had begun: {self.begun}"
        if path.goes_on and not (fault and child.was_killed):
            yield from self._of_who_went_on(path, child)

    def _of_rows(self, path: Path, jobs: dict[str, Any]) -> Iterator[str]:
        """Look whether everything is there, and where it has to be in the end."""
        told = {entry.item for entry in self.ledger.entries() if entry.what == "committed"}
        may_go = path.expected.get("may_go", set())
        if missing := (told | set(self.before)) - set(jobs) - may_go:
            yield f"gone: {sorted(missing)}"
        for together in path.expected.get("together", ()):
            if len(present := together & set(jobs)) not in (0, len(together)):
                yield f"of one transaction only {sorted(present)} is there"
        if (rivals := path.expected.get("one_of")) and len(rivals & set(jobs)) != 1:
            yield f"of {sorted(rivals)}, who share a key, {sorted(rivals & set(jobs))} are there"
        ends, errors = path.expected.get("ends", {}), path.expected.get("errors", {})
        if self._is_undone(path, jobs):
            ends = path.expected["undone"]
        for name, job in jobs.items():
            if job.status != ends.get(name, "PROCESSED"):
                yield f"{name} is {job.status}, and not {ends.get(name, 'PROCESSED')}"
            if job.error_count != errors.get(name, 0):
                yield f"{name} has counted {job.error_count} errors, not {errors.get(name, 0)}"
            if job.running_lane or job.lease_until or job.leased_by:
                yield f"{name} is still leased"

    def _is_undone(self, path: Path, jobs: dict[str, Any]) -> bool:
        """Return whether all is as if a person's decision had not been made, where that may be."""
        return {name: job.status for name, job in jobs.items()} == path.expected.get("undone")

    def _of_deaths(self, path: Path, jobs: dict[str, Any]) -> Iterator[str]:
        """A worker's death is counted on the job that it had begun, and on no other."""
        counted = {name: job.worker_deaths for name, job in jobs.items() if job.worker_deaths}
        expected = Counter(path.expected.get("deaths", {}))
        expected.update(self.begun)
        if counted != +expected:
            yield f"counted as deaths: {counted}, expected: {dict(expected)}"

    def _of_bodies(self, path: Path, jobs: dict[str, Any], repeats: int) -> Iterator[str]:
        never = set(jobs) if self._is_undone(path, jobs) else path.expected.get("never", set())
        run = set(jobs) | path.expected.get("may_go", set())
        history = History(self.ledger.entries(), committed=run - never)
        yield from history.problems(repeats)
        effects = Counter(Note.objects.using(self.using).values_list("text", flat=True))
        counting = {name for name, job in jobs.items() if job.status == "PROCESSED"}
        if self.queue.atomic and effects != Counter(counting):
            yield f"effects of an atomic queue, more or less than once: {dict(effects)}"

    def _of_who_went_on(self, path: Path, child: Child) -> Iterator[str]:
        """One that lives on finds out what is his: nothing waits for the end of a lease."""
        if child.error:
            yield f"it raised {child.error}"
        is_done, left = path.expected.get("is_done"), self.left
        if is_done and (unfinished := [name for name in left if left[name] in ("NEW", "DEFERRED")]):
            yield f"it ended before {unfinished} had their turn"
        for name in path.expected.get("had_turn", ()):
            if left[name] in OPEN:
                yield f"{name} was left to a sweep: it is {left[name]}"
        if leased := [name for name in left if left[name] == "PROCESSING"]:
            yield f"it left {leased} to wait for the end of a lease"
        for complaint in child.complaints:
            if "outlived its lease" in complaint:
                yield f"it said: {complaint}"


def name_of(job: Any) -> str:
    return str(job.script.partition(":")[0])


# What is there before


def nothing(world: QueueWorld) -> None:
    """Nothing is there."""


def waiting(*scripts: str) -> Callable[[QueueWorld], None]:
    """Jobs wait, and a kick for them is on its way."""

    def arrange(world: QueueWorld) -> None:
        for script in scripts:
            world.enqueue(script)
        del world.kicks[1:]

    return arrange


def failed_with_dependents(world: QueueWorld) -> None:
    world.enqueue("a", "b", "c")
    first, *others = world.rows.order_by("id")
    world.rows.filter(pk=first.pk).update(status="FAILED", error_message="wrong")
    ids = [job.pk for job in others]
    world.rows.filter(pk__in=ids).update(status="FAILED", failed_by=first.pk)
    world.kicks.clear()


def expired(*scripts: str, deaths: int = 0) -> Callable[[QueueWorld], None]:
    """The worker of the first job died in its body long ago."""

    def arrange(world: QueueWorld) -> None:
        world.enqueue(*scripts)
        first = world.rows.order_by("id")[0]
        assert first.claim(worker_deaths=deaths)
        past = from_now(-timedelta(minutes=5))
        world.rows.filter(pk=first.pk).update(lease_until=past)
        world.kicks.clear()

    return arrange


def one_key_in_two_lanes(script: str) -> Callable[[QueueWorld], None]:
    """In one lane a job with a key runs, and one waits behind it; in another one has its key."""

    def arrange(world: QueueWorld) -> None:
        world.enqueue("older", shop="a", unique_key=KEY)
        older = world.rows.get()
        assert older.claim()
        world.rows.filter(pk=older.pk).update(
            begun_at=None
        )  # should it be rescued, it costs nothing
        [newer] = world.enqueue(script, shop="b", unique_key=KEY)
        world.enqueue("behind", shop="a")
        world.kicks[:] = [kick for kick in world.kicks if newer.lane in kick["lanes"]]

    return arrange


def one_key_and_a_death(world: QueueWorld) -> None:
    """The same, but the second one's worker died long ago, and the first one waits for hours."""
    one_key_in_two_lanes("newer")(world)
    older, newer = world.rows.filter(unique_key=KEY).order_by("id")
    assert newer.claim()
    past = from_now(-timedelta(minutes=5))
    world.rows.filter(pk=newer.pk).update(lease_until=past)
    assert older.put_back(run_after=from_now(HOURS))
    world.kicks.clear()


def held(world: QueueWorld) -> None:
    """Under ``HOLD_LANE`` jobs wait behind a failed one."""
    world.enqueue("a", "b", "c")
    first = world.rows.order_by("id")[0]
    world.rows.filter(pk=first.pk).update(status="FAILED", error_message="wrong")
    world.kicks.clear()


def old(world: QueueWorld) -> None:
    """Jobs are done; all but the last are old."""
    world.enqueue("a", "b", "c", "new")
    world.deliver()
    last = world.rows.order_by("-id")[0]
    then = local_now() - timedelta(days=30)
    world.rows.exclude(pk=last.pk).update(modification_date=then)


# What is done


def enqueue(*scripts: str) -> Callable[[QueueWorld], None]:
    def act(world: QueueWorld) -> None:
        world.enqueue(*scripts)

    return act


def enqueue_with_key(script: str) -> Callable[[QueueWorld], None]:
    """Enqueue a job unless its key is taken."""

    def act(world: QueueWorld) -> None:
        with contextlib.suppress(DuplicateUniqueKey):
            world.enqueue(script, unique_key=KEY)

    return act


def enqueue_many(world: QueueWorld) -> None:
    jobs = [world.queue(script=name) for name in ("a", "b", "c")]
    world.queue.enqueue_many(jobs, using=world.using)


def enqueue_and_change_ones_mind(world: QueueWorld) -> None:
    """Of two jobs, the first goes with its savepoint."""
    with transaction.atomic(using=world.using):
        with transaction.atomic(using=world.using):
            world.queue.enqueue(using=world.using, script="never")
            transaction.set_rollback(True, using=world.using)
        world.queue.enqueue(using=world.using, script="a")


def work(world: QueueWorld) -> None:
    """Be the worker that takes the kicks."""
    world.deliver()


def retry(world: QueueWorld) -> None:
    world.rows.order_by("id")[0].retry()


def delete(world: QueueWorld) -> None:
    world.rows.order_by("id")[0].delete()


def sweep_and_work(world: QueueWorld) -> None:
    sweep.rescue(world.queue, world.using)
    sweep.kick_waiting(world.queue, world.using)
    world.deliver()


def rescue_only(world: QueueWorld) -> None:
    sweep.rescue(world.queue, world.using)


def sweep_only(world: QueueWorld) -> None:
    Tick.objects.take(sweep.TICK, 15, using=world.using)
    sweep.rescue(world.queue, world.using)
    sweep.adopt(world.queue, world.using)
    sweep.kick_waiting(world.queue, world.using)


def clean(world: QueueWorld) -> None:
    cleanup.clean(world.queue, world.using)


AB, ABC = {"a", "b"}, {"a", "b", "c"}


@dataclass(frozen=True)
class QueuePath(Path):
    """A path of one kind of queue."""

    queue: Any = FifoJob


def _path(name: str, arrange: Any, act: Any, least: int, **options: Any) -> QueuePath:
    fields = {"queue", "goes_on", "engines", "meanwhile"} & set(options)
    known = {field: options.pop(field) for field in fields}
    return QueuePath(name, arrange, act, least, **known, expected=options)


def _of_callers(name: str, arrange: Any, act: Any, least: int, **options: Any) -> QueuePath:
    """Return a path of one who is told, by an error, that the answer was lost."""
    return _path(name, arrange, act, least, goes_on=False, **options)


PATHS = [
    _of_callers("enqueue", nothing, enqueue("a", "b"), 6, together=[AB], engines="PM"),
    _of_callers("enqueue-many", nothing, enqueue_many, 3, together=[ABC], engines="P"),
    _of_callers(
        "enqueue-free", nothing, enqueue("a", "b"), 7, queue=FreeJob, together=[AB], engines="P"
    ),
    _of_callers("savepoint", nothing, enqueue_and_change_ones_mind, 8, engines="P"),
    _path("hand-off", waiting("a", "b", "c"), work, 12, is_done=True),
    _path("pool", waiting("a", "b", "c"), work, 14, queue=FreeJob, is_done=True),
    _path("atomic", waiting("a", "b"), work, 15, queue=AtomicJob, is_done=True),
    _path("back-off", waiting("a:temporary", "b"), work, 6, errors={"a": 1}, engines="PM"),
    _path(
        "back-off-free",
        waiting("a:temporary", "b"),
        work,
        13,
        queue=FreeJob,
        errors={"a": 1},
        engines="P",
    ),
    _path(
        "failure",
        waiting("a:fail", "b", "c"),
        work,
        11,
        never={"b", "c"},
        ends=dict.fromkeys("abc", "FAILED"),
        is_done=True,
        engines="PM",
    ),
    _path(
        "atomic-failure",
        waiting("a:fail", "b"),
        work,
        8,
        queue=AtomicJob,
        never={"b"},
        ends=dict.fromkeys("ab", "FAILED"),
        is_done=True,
        engines="P",
    ),
    _path("resume", waiting("a:resume", "b"), work, 9, engines="P"),
    _path("ignored", waiting("a:ignore", "b"), work, 10, ends={"a": "IGNORED"}, engines=""),
    _path("deferred", waiting("a:defer", "b"), work, 8, errors={"a": 1}, engines=""),
    _of_callers(
        "retry",
        failed_with_dependents,
        retry,
        8,
        undone=dict.fromkeys("abc", "FAILED"),
        engines="PM",
    ),
    _of_callers("rescue", expired("a", "b"), sweep_and_work, 22, deaths={"a": 1}, engines="P"),
    _of_callers(
        "third-death",
        expired("a", "b", deaths=2),
        sweep_and_work,
        20,
        deaths={"a": 3},
        never=AB,
        ends=dict.fromkeys("ab", "FAILED"),
        engines="P",
    ),
    _of_callers("sweep", expired("a", "b"), sweep_only, 20, deaths={"a": 1}, engines="P"),
    _of_callers("clean", old, clean, 4, may_go=ABC, engines="P"),
    _of_callers(
        "strict",
        nothing,
        enqueue("a", "b"),
        6,
        queue=StrictJob,
        meanwhile=enqueue("c"),
        together=[AB],
    ),
    _path(
        "squash",
        waiting("a", "b", "c"),
        work,
        10,
        queue=SquashJob,
        never=AB,
        ends=dict.fromkeys("ab", "SQUASHED"),
        is_done=True,
    ),
    _of_callers(
        "key",
        nothing,
        enqueue_with_key("a"),
        6,
        meanwhile=enqueue_with_key("b"),
        one_of=AB,
    ),
    _path(
        "key-comes-back",
        one_key_in_two_lanes("newer:meet"),
        work,
        18,
        queue=LaneJob,
        never={"older"},
        ends={"older": "SQUASHED"},
        errors={"newer": 1},
        had_turn=["behind"],
    ),
    _of_callers(
        "key-is-rescued",
        one_key_and_a_death,
        rescue_only,
        10,
        queue=LaneJob,
        never={"older"},
        ends={"older": "SQUASHED"},
        deaths={"newer": 1},
    ),
    _of_callers(
        "delete",
        held,
        delete,
        4,
        queue=HoldJob,
        may_go={"a"},
        never={"a"},
        undone={"a": "FAILED", "b": "NEW", "c": "NEW"},
    ),
]
