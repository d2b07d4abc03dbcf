"""Why a job does not run: a handful of indexed questions, and a sentence for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import consumers, pauses
from .states import FailurePolicy, JobStatus
from .texts import in_local_zone, printable

if TYPE_CHECKING:
    pass

SHOWN_OF_ERRORS = 300


@dataclass(frozen=True)
class Reason:
    """Why a job is where it is: a stable ``code``, and a sentence as its ``str()``.

    Codes: ``gone``, ``processed``, ``squashed``, ``ignored``, ``failed``, ``failed-with-cause``,
    ``running``, ``leased``, ``lease-ran-out``, ``no-lane``, ``paused-queue``, ``paused-lane``,
    ``held``, ``about-to-fail``, ``about-to-be-squashed``, ``behind``, ``due-later``, ``deferred``,
    ``no-worker``, ``broker-away`` and ``ready``.
    """

    code: str
    text: str
    job_id: int | None = None
    """The other job that the sentence is about, if it is about one."""

    def __str__(self) -> str:
        return self.text


def why(job: Any, *, ask_workers: bool = False) -> Reason:
    """Return why ``job`` does not run, or how it stands, by a look at the database now.

    With ``ask_workers`` Celery's workers are asked too whether one of them consumes the queue
    that the kicks of ``job`` go to; that takes a second.
    """
    seen = type(job).rows(job.alias).explained(job.pk, job.lane or "")
    if seen is None:
        return Reason("gone", "There is no such job any more: it was deleted.")
    reason = next(_reasons(seen))
    if reason.code != "ready" or not ask_workers:
        return reason
    return _of_workers(seen) or reason


def _reasons(job: Any) -> Iterator[Reason]:
    """Yield what keeps ``job``, the most telling first."""
    match job.status:
        case JobStatus.PROCESSING:
            yield _running(job)
        case JobStatus.FAILED:
            yield _failed(job)
        case JobStatus.NEW | JobStatus.DEFERRED:
            yield from _waiting(job)
        case _:
            yield _finished(job)


def _finished(job: Any) -> Reason:
    when = _moment(job.modification_date)
    match job.status:
        case JobStatus.PROCESSED:
            return Reason("processed", f"It was processed at {when}.")
        case JobStatus.SQUASHED:
            return Reason("squashed", f"A newer job took its place at {when}; it never runs.")
    told = f": {_short(job.error_message)}" if job.error_message else "."
    return Reason("ignored", f"It was set aside at {when}, and never runs{told}")


def _running(job: Any) -> Reason:
    until, worker = _moment(job.lease_until), printable(job.leased_by)
    if job.lease_until < job.database_time:
        return Reason(
            "lease-ran-out",
            f"The lease of {worker} ran out at {until}: it died or is cut off. "
            "The next sweep gives the job back.",
        )
    if job.begun_at is None:
        return Reason("leased", f"It is leased by {worker} until {until}, to begin soon.")
    return Reason(
        "running",
        f"It has been running since {_moment(job.begun_at)}, leased by {worker} until {until}.",
    )


def _failed(job: Any) -> Reason:
    when = _moment(job.modification_date)
    if job.failed_by is None:
        return Reason(
            "failed",
            f"It failed at {when}, in attempt {job.attempt}. Retry it or ignore it. Its error: "
            f"{_short(job.error_message) or '(no message)'}",
        )
    cause = type(job).rows(job.alias).filter(pk=job.failed_by).first()
    now = f"is {cause.status} now" if cause else "is deleted"
    advice = (
        "Retry that one, and this one comes back with it."
        if cause is not None and cause.status == JobStatus.FAILED
        else "Retry this one."
    )
    return Reason(
        "failed-with-cause",
        f"It failed at {when} because job {job.failed_by} before it had failed, which {now}. "
        f"{advice}",
        job.failed_by,
    )


def _waiting(job: Any) -> Iterator[Reason]:
    if job.is_paused:
        yield _paused(job)
    if job.dependent_fields is None:
        yield from _waiting_in_pool(job)
    elif job.lane is None:
        yield Reason("no-lane", "It has no lane yet: the next sweep gives it one.")
    else:
        yield from _waiting_in_lane(job)
    if job.status == JobStatus.NEW and not job.is_due:
        yield _due_later(job)
    yield Reason("ready", "It is ready: the next free worker takes it.")


def _paused(job: Any) -> Reason:
    pause = pauses.pause_of(type(job), job.alias, job.lane)
    if pause is None:
        return Reason("ready", "It was paused until a moment ago.")
    what, code = ("Its lane", "paused-lane") if pause.lane else ("Its queue", "paused-queue")
    told = f": {printable(pause.reason)}" if pause.reason else "."
    return Reason(code, f"{what} has been paused since {_moment(pause.paused_at)}{told}")


def _waiting_in_pool(job: Any) -> Iterator[Reason]:
    if job.status == JobStatus.DEFERRED:
        for ready in type(job).rows(job.alias).next_ids(1):
            yield _deferred(ready)


def _waiting_in_lane(job: Any) -> Iterator[Reason]:
    if job.held_by is not None:
        yield _held(job)
    rows = type(job).rows(job.alias)
    if job.lane_is_running and (runner := rows.running_in(job.lane)) is not None:
        yield _behind(job, runner)
    head = _first_to_run(rows, job)
    may_run = head is not None and head.is_due and head.held_by is None
    if job.SQUASH_WAITING_JOBS and may_run and job.pk < head.pk:
        yield _about_to_be_squashed(head)
    if job.status == JobStatus.NEW:
        if head is not None and head.pk < job.pk:
            yield _behind(job, head)
        return
    if may_run:
        yield _deferred(head.pk)
    earlier = rows.candidate(job.lane, JobStatus.DEFERRED)
    if earlier is not None and earlier.pk < job.pk:
        yield _behind(job, earlier)


def _first_to_run(rows: Any, job: Any) -> Any:
    """Return the first ``NEW`` job of the lane, or the one that would squash it; None: no such."""
    head = rows.candidate(job.lane, JobStatus.NEW)
    may_run = head is not None and head.is_due and head.held_by is None
    if not (job.SQUASH_WAITING_JOBS and may_run):
        return head
    newest = rows.newest_due(head)
    return head if newest in (None, head.pk) else rows.explained(newest, job.lane) or head


def _held(job: Any) -> Reason:
    if job.FAILURE_POLICY is FailurePolicy.HOLD_LANE:
        return Reason(
            "held",
            f"Job {job.held_by} before it failed, and holds the lane until it is retried, "
            "ignored or deleted.",
            job.held_by,
        )
    return Reason(
        "about-to-fail",
        f"Job {job.held_by} before it failed, and this one is about to fail with it. Retry or "
        "ignore that one.",
        job.held_by,
    )


def _behind(job: Any, other: Any) -> Reason:
    state = "which waits too."
    if other.status == JobStatus.PROCESSING:
        state = (
            f"which is leased by {printable(other.leased_by)} until {_moment(other.lease_until)}."
        )
        if other.lease_until < job.database_time:
            state += " That lease ran out: the next sweep gives the job back."
    elif other.status == JobStatus.NEW and not other.is_due:
        state = f"which is due at {_moment(other.run_after)}{_because(other)}"
    return Reason("behind", f"It waits behind job {other.pk} of its lane, {state}", other.pk)


def _about_to_be_squashed(newer: Any) -> Reason:
    return Reason(
        "about-to-be-squashed",
        f"Job {newer.pk} of its lane is newer, and is about to take its place.",
        newer.pk,
    )


def _deferred(ready: int) -> Reason:
    return Reason(
        "deferred",
        f"It was deferred, and runs when no other job of its queue or lane is due: job {ready} is.",
        ready,
    )


def _due_later(job: Any) -> Reason:
    return Reason("due-later", f"It is due at {_moment(job.run_after)}{_because(job)}")


def _because(job: Any) -> str:
    if not job.error_count:
        return "."
    attempts = "1 failed attempt" if job.error_count == 1 else f"{job.error_count} failed attempts"
    return f", after {attempts}: {_short(job.error_message)}"


def _of_workers(job: Any) -> Reason | None:
    """Return what keeps a ready job from a worker, as far as the workers themselves know."""
    arguments = {"queue": job._meta.label, "using": job.alias}
    if job.lane is not None:
        arguments["lanes"] = [job.lane]
    try:
        name, found = consumers.of_kicks(arguments)
    except consumers.NobodyToAsk as error:
        return Reason(
            "broker-away",
            f"It is ready, but the broker can't be asked who would take it ({error}). "
            "Without a broker only manage.py process_queue runs jobs.",
        )
    if found:
        return None
    return Reason(
        "no-worker",
        f"It is ready, but no worker answers that consumes the Celery queue {name!r}, "
        "which its kicks go to.",
    )


def _moment(moment: datetime | None) -> str:
    if moment is None:
        return "no time"
    return in_local_zone(moment).strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= SHOWN_OF_ERRORS else f"{text[:SHOWN_OF_ERRORS]}…"
