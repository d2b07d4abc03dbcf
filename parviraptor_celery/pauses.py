"""Pauses: a queue, or one lane of it, of which no job is claimed until it is resumed.

A pause is a row in the database of the jobs, and every look for what is next asks for it: once
the pause has committed, no later look finds a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import router, transaction
from django.db.models import BooleanField, Count, Exists, ExpressionWrapper, Q, Value
from django.db.models.expressions import Combinable

from . import aliases, broker, kicks, signals
from .exceptions import CanNotPause, NotALane
from .lanes import lane_of

if TYPE_CHECKING:
    from .models import Pause

Condition = Exists | ExpressionWrapper | Value

WHOLE_QUEUE = ""
REASON_LENGTH = 200


def can_be_made(using: str) -> bool:
    """Return whether the database ``using`` has the table of pauses."""
    return aliases.has_table(_model(), using)


def condition(queue: Any, using: str, lane: str | Combinable = WHOLE_QUEUE) -> Condition:
    """Return the condition that ``queue`` is paused in ``using``, or this ``lane`` of it.

    False everywhere if that database has no table for pauses.
    """
    if not can_be_made(using):
        return Value(False, output_field=BooleanField())
    pauses = _pauses_of(queue, using)
    whole = Exists(pauses.filter(lane=WHOLE_QUEUE))
    if lane == WHOLE_QUEUE:
        return whole
    # Of `lane IN ('', a column)` PostgreSQL may make a filter over all pauses of the queue.
    return ExpressionWrapper(whole | Exists(pauses.filter(lane=lane)), output_field=BooleanField())


def paused_lanes(queue: Any, using: str, lanes: Iterable[str]) -> frozenset[str]:
    """Return which of ``lanes`` are paused: all of them, if their queue is."""
    wanted = list(lanes)
    if not can_be_made(using):
        return frozenset()
    found: set[str] = set()
    for first in range(0, len(wanted), 500):
        asked = [WHOLE_QUEUE, *wanted[first : first + 500]]
        pauses = _pauses_of(queue, using).filter(lane__in=asked)
        found.update(pauses.values_list("lane", flat=True))
    return frozenset(wanted if WHOLE_QUEUE in found else found)


def pause_of(queue: Any, using: str, lane: str | None) -> Pause | None:
    """Return what keeps the jobs of ``lane`` from being claimed: the queue's pause, or its own."""
    if not can_be_made(using):
        return None
    lanes = {WHOLE_QUEUE, lane or WHOLE_QUEUE}
    found: Pause | None = _pauses_of(queue, using).filter(lane__in=lanes).order_by("lane").first()
    return found


def paused_queues(using: str) -> list[str]:
    """Return the labels, in lower case, of the queues that are paused, or some lane of them."""
    aliases.look_again()  # between two looks a migration may have made the table, or dropped it
    if not can_be_made(using):
        return []
    rows = _model()._default_manager.using(using).order_by("queue")
    return list(rows.values_list("queue", flat=True).distinct())


def counts(queue: Any, using: str) -> tuple[bool, int]:
    """Return whether the whole queue is paused, and how many single lanes are."""
    if not can_be_made(using):
        return False, 0
    found = _pauses_of(queue, using).aggregate(
        pauses=Count("pk"), of_queue=Count("pk", filter=Q(lane=WHOLE_QUEUE))
    )
    return bool(found["of_queue"]), found["pauses"] - found["of_queue"]


def oldest(queue: Any, using: str, most: int) -> list[Pause]:
    """Return the first of the pauses of ``queue`` and its lanes."""
    if not can_be_made(using):
        return []
    return list(_pauses_of(queue, using).order_by("paused_at", "pk")[:most])


def pause(queue: Any, using: str | None, lane: str, reason: str) -> bool:
    """Pause ``lane`` (empty: the whole queue); False if it was paused already.

    Raises:
        CanNotPause: there is no table for pauses, or the reason is too long.
    """
    alias = using or router.db_for_write(queue)
    _require_table(queue, alias)
    if len(reason) > REASON_LENGTH:
        raise CanNotPause(
            f"The reason of a pause has at most {REASON_LENGTH} characters, this one has "
            f"{len(reason)}."
        )
    with transaction.atomic(using=alias):
        _, is_new = _pauses_of(queue, alias).update_or_create(
            queue=_label(queue), lane=lane, defaults={"reason": reason}
        )
        _tell_after_commit(signals.queue_paused, queue, alias, lane)
    return bool(is_new)


def resume(queue: Any, using: str | None, lane: str) -> bool:
    """End the pause of ``lane`` (empty: of the whole queue), and wake workers; False if none was.

    Lanes that were paused one by one stay paused when their queue is resumed.
    """
    alias = using or router.db_for_write(queue)
    if not can_be_made(alias):
        return False
    with transaction.atomic(using=alias):
        ended, _ = _pauses_of(queue, alias).filter(lane=lane).delete()
        if ended:
            _tell_after_commit(signals.queue_resumed, queue, alias, lane)
            transaction.on_commit(lambda: _wake(queue, alias, lane), using=alias, robust=True)
    return bool(ended)


def lane_named(queue: Any, values: Mapping[str, Any], reason: str = "") -> str:
    """Return the lane that ``values`` of all dependent fields name; none name the whole queue.

    ``reason`` is what was given beside them; it must not be taken for a field of that name.

    Raises:
        NotALane: a field is missing, unknown or has a value that it can't hold.
    """
    names = queue.dependent_fields or []
    if reason and "reason" in names:
        raise NotALane(f"{queue._meta.label}: reason is a dependent field; use job.pause_lane().")
    if not values:
        return WHOLE_QUEUE
    fields = [queue._meta.get_field(name) for name in names]
    given = {f.name for f in fields if f.name in values or getattr(f, "attname", "") in values}
    if given != set(names) or len(values) != len(names):
        raise NotALane(_which_lanes(queue, values))
    try:
        return lane_of(queue(**values), names)
    except (ValidationError, ValueError, TypeError, ArithmeticError) as error:
        raise NotALane(f"{_which_lanes(queue, values)} ({type(error).__name__})") from error


def lane_of_job(job: Any) -> str:
    """Return the lane of ``job``, to be paused or resumed.

    Raises:
        NotALane: its queue has no lanes.
    """
    if job.dependent_fields is None:
        raise NotALane(_which_lanes(type(job), {}))
    return job.lane or lane_of(job, job.dependent_fields)


def _which_lanes(queue: Any, values: Mapping[str, Any]) -> str:
    name, given = queue._meta.label, ", ".join(sorted(values)) or "none"
    whole = f"{queue.__name__}.pause() and .resume() are about the whole queue"
    if not queue.dependent_fields:
        kind = "independent" if queue.dependent_fields is None else "all in one lane"
        return f"{name}: its jobs are {kind}, so no lane can be named. {whole}."
    wanted = ", ".join(f"{field}=…" for field in queue.dependent_fields)
    return f"{name}: a lane is named by ({wanted}), given were: {given}. {whole}."


def _model() -> type[Pause]:
    # The models themselves need the querysets, and these need this module.
    return apps.get_model("parviraptor_celery", "Pause")


def _label(queue: Any) -> str:
    """Return the label of the queue itself, also for a proxy of it."""
    return str(queue._meta.concrete_model._meta.label_lower)


def _pauses_of(queue: Any, using: str) -> Any:
    return _model()._default_manager.using(using).filter(queue=_label(queue))


def _require_table(queue: Any, alias: str) -> None:
    if can_be_made(alias):
        return
    aliases.look_again()
    if not can_be_made(alias):
        raise CanNotPause(
            f"{queue._meta.label} can't be paused in the database {alias!r}, which has no table "
            f"{_model()._meta.db_table}. Let your database routers allow the app "
            f"parviraptor_celery there, and run: manage.py migrate parviraptor_celery "
            f"--database {alias}"
        )


def _tell_after_commit(signal: Any, queue: Any, alias: str, lane: str) -> None:
    def tell() -> None:
        signals.tell(signal, sender=queue, using=alias, lane=lane)

    transaction.on_commit(tell, using=alias, robust=True)


def _wake(queue: Any, using: str, lane: str) -> None:
    if lane:
        kicks.send(queue, using, [lane])
    elif queue.dependent_fields is None:
        kicks.send_for_pool(queue, using)
    else:
        broker.kick(kicks.DISPATCH, queue=queue._meta.label, using=using)
