"""Finds what no nudge speaks of any more: leases that ran out, lanes whose nudge was lost."""

from __future__ import annotations

import logging

from django.db import router

from parviraptor_celery.drains import Budget, Report
from parviraptor_celery.sweeping import next_lanes, rescue_expired

from . import dispatch, execution, kicks, registry
from .conf import settings
from .models import Event, Tick
from .states import EventStatus

logger = logging.getLogger("jaiminho_celery")

TICK = "relay"


def sweep_all(budget: Budget, *, force: bool = False) -> list[tuple[str, Report]]:
    """Rescue, publish what has no order, and nudge the lanes; nothing if just done by another.

    Returns the report of the unordered events of each database.
    """
    alias = router.db_for_write(Tick)
    is_due = Tick.objects.take(TICK, settings.RELAY_INTERVAL_SECONDS / 2, using=alias)
    if not (is_due or force):
        return []
    reports: list[tuple[str, Report]] = []

    def sweep(using: str) -> None:
        rescue(using)
        if lanes := lanes_due(using):
            kicks.send(using, lanes)
        reports.append((using, dispatch.relay_pool(using, budget)))

    registry.for_each_alias(sweep)
    return reports


def relay_here(using: str, budget: Budget, stream: str | None = None) -> int:
    """Publish everything of ``stream`` (None: of all) that is due, in this process."""
    rescue(using)
    done = dispatch.relay_pool(using, budget, stream).rows
    after = ""
    rows = Event.rows(using).of_stream(stream)
    while not budget.is_spent:
        heads = dict(rows.lane_heads(EventStatus.WAITING, after, settings.SWEEP_LANES))
        if not heads:
            break
        done += dispatch.relay_lanes(using, rows.startable(heads), budget).rows
        after = max(heads)
    return done


def rescue(using: str) -> int:
    """Hand the events of dead hooks and relays to the living; return how many."""
    return rescue_expired(Event.rows(using), Event.rescue, _announce)


def lanes_due(using: str) -> list[str]:
    """Return the lanes to nudge, going round from sweep to sweep."""
    rows = Event.rows(using)
    waiting = (EventStatus.WAITING,)
    (heads,) = next_lanes(rows, waiting, Tick, f"{TICK}:{using}", settings.SWEEP_LANES)
    return rows.startable(heads)


def _announce(event: Event) -> None:
    if event.status == EventStatus.DEAD:
        execution.announce_burial(event)
        return
    logger.warning("event %s: its lease ran out, the relay takes it", event.pk)
