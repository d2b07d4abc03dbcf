"""Dead letters by the dozen: look at them, replay, skip or discard them.

>>> from jaiminho_celery import dead_letters
>>> dead_letters.replay(stream="orders", dry_run=True).total
12
>>> dead_letters.replay(stream="orders")
Report(lines=[Line(using='default', stream='orders', …, count=12, …)], left_alone=0, left_out=[])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any, Unpack

from django.db.models import Count, Max, Min

from parviraptor_celery.clock import now
from parviraptor_celery.database import in_transaction

from . import kicks, registry, selections
from .models import Event
from .querysets import EventQuerySet
from .selections import Selection

logger = logging.getLogger("jaiminho_celery")

CHUNK_ROWS = 500


class Verb(Enum):
    """What a person may decide about a dead letter. The value is the past participle."""

    REPLAY = "replayed"
    SKIP = "skipped"
    DISCARD = "discarded"

    def apply(self, event: Event, due: datetime) -> bool:
        """Decide about ``event``, fenced; False when somebody else was faster."""
        match self:
            case Verb.REPLAY:
                return event.replay(due=due, nudge=False)
            case Verb.SKIP:
                return event.skip(nudge=False)
            case Verb.DISCARD:
                return event.discard(nudge=False)


@dataclass
class Line:
    """Dead letters that died alike."""

    using: str
    stream: str
    name: str
    fingerprint: str
    reason: str
    """That of the first of them: others may differ in what the message says."""

    oldest: datetime
    """When the oldest of them was written."""

    latest: datetime
    """When the last of them died."""

    count: int


@dataclass
class Report:
    """What was decided, or in a dry run would be, in groups that died alike."""

    lines: list[Line] = field(default_factory=list)
    left_alone: int = 0
    """Dead letters that somebody else had decided about in the meantime."""

    left_out: list[str] = field(default_factory=list)
    """Databases that could not be asked; the log says why."""

    @property
    def total(self) -> int:
        return sum(line.count for line in self.lines)


def summary(**selection: Unpack[Selection]) -> Report:
    """Return what is dead, in groups that died alike. Without a condition: everything."""
    return _for_each(selections.checked(selection, empty_is_all=True), _summarize)


def replay(*, dry_run: bool = False, **selection: Unpack[Selection]) -> Report:
    """Let dead letters wait for the relay again, in their old order, as if they were new.

    Works off one chunk of ``CHUNK_ROWS`` rows after the other, by id, each in a transaction of
    its own (inside the caller's, if there is one). So an error on the way leaves whole chunks
    decided, and the call may be repeated. With ``dry_run`` nothing is written.

    Raises:
        BadSelection: no condition and no ``everything=True``, or an unclear one.
        UnknownAlias: ``using`` names a database that DATABASES lacks.
    """
    return _decide_about(selection, Verb.REPLAY, dry_run)


def skip(*, dry_run: bool = False, **selection: Unpack[Selection]) -> Report:
    """Set dead letters aside, kept as SKIPPED, so that their lanes go on; as ``replay()``."""
    return _decide_about(selection, Verb.SKIP, dry_run)


def discard(*, dry_run: bool = False, **selection: Unpack[Selection]) -> Report:
    """Delete dead letters for good, so that their lanes go on; as ``replay()``."""
    return _decide_about(selection, Verb.DISCARD, dry_run)


def decide(verb: Verb, rows: EventQuerySet, *, dry_run: bool = False) -> Report:
    """Decide about the dead ones among ``rows`` of one database; see ``replay()``."""
    report = Report()
    if dry_run:
        _summarize(rows, report)
    else:
        _work_off(verb, rows, report)
    return report


def _decide_about(selection: Selection, verb: Verb, dry_run: bool) -> Report:
    body = _summarize if dry_run else partial(_work_off, verb)
    return _for_each(selections.checked(selection), body)


def _for_each(
    conditions: Mapping[str, Any], body: Callable[[EventQuerySet, Report], None]
) -> Report:
    """Call ``body`` with the selected rows of each database that is meant."""
    report, using = Report(), conditions.get("using")

    def in_database(alias: str) -> None:
        body(selections.selected(Event.rows(alias), conditions), report)

    if using is not None:
        in_database(using)
    else:
        report.left_out = registry.for_each_alias(in_database)
    return report


def _summarize(rows: EventQuerySet, report: Report) -> None:
    """Add the dead ones among ``rows`` to ``report``, counted by the database."""
    groups = rows.dead().order_by().values("stream", "name", "fingerprint")
    counted = groups.annotate(
        count=Count("id"), first=Min("id"), oldest=Min("created_at"), latest=Max("modified_at")
    )
    for group in counted.order_by("-count", "first"):
        first = group.pop("first")
        reason = Event.rows(rows.db).filter(pk=first).values_list("error_message", flat=True)
        report.lines.append(Line(using=rows.db, reason=reason.first() or "", **group))


def _work_off(verb: Verb, rows: EventQuerySet, report: Report) -> None:
    """Decide about the dead ones among ``rows``, and add what was decided to ``report``."""
    dead = rows.dead().defer("body", "signature").annotate(read_at=now())
    lines: dict[tuple[str, ...], Line] = {}
    after, unordered = 0, False
    try:
        while chunk := in_transaction(rows.db, partial(_decide_chunk, verb, dead, after)):
            after, unordered = chunk.last, unordered or chunk.is_unordered
            report.left_alone += chunk.left_alone
            for one in chunk.decided:
                _add(one, lines, report)
    finally:
        if verb is Verb.REPLAY and unordered:
            kicks.pool_on_commit(rows.db)
        total = sum(line.count for line in lines.values())
        logger.info("dead letters of %s %s: %s", rows.db, verb.value, total)


@dataclass
class _Chunk:
    """What became of a few dead letters; counted only once their transaction has committed."""

    last: int
    decided: list[Line] = field(default_factory=list)
    left_alone: int = 0
    is_unordered: bool = False


def _decide_chunk(verb: Verb, dead: EventQuerySet, after: int) -> _Chunk | None:
    """Decide about the next events behind the id ``after``; None when there are none.

    All have one due time, so that the relay takes those without order by id.
    """
    events = list(dead.filter(pk__gt=after)[:CHUNK_ROWS])
    if not events:
        return None
    chunk, lanes = _Chunk(events[-1].pk), set[str]()
    for event in events:
        line = _line_of(event)  # before a replay makes the event forget why it failed
        if not verb.apply(event, events[0].read_at):
            chunk.left_alone += 1
            continue
        chunk.decided.append(line)
        if event.lane is None:
            chunk.is_unordered = True
        else:
            lanes.add(event.lane)
    if lanes:
        kicks.lanes_on_commit(dead.db, lanes)
    return chunk


def _line_of(event: Event) -> Line:
    return Line(
        using=event.alias,
        stream=event.stream,
        name=event.name,
        fingerprint=event.fingerprint,
        reason=event.error_message,
        oldest=event.created_at,
        latest=event.modified_at,
        count=1,
    )


def _add(one: Line, lines: dict[tuple[str, ...], Line], report: Report) -> None:
    """Count ``one`` dead letter with those that died alike."""
    alike = (one.stream, one.name, one.fingerprint)
    known = lines.get(alike)
    if known is None:
        lines[alike] = one
        report.lines.append(one)
        return
    known.count += 1
    known.oldest, known.latest = min(known.oldest, one.oldest), max(known.latest, one.latest)
