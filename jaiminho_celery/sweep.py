"""Finds what no nudge speaks of any more: leases that ran out, lanes whose nudge was lost."""

from __future__ import annotations

import logging

from django.db import Error, router

from parviraptor_celery.drains import Budget, Report
from parviraptor_celery.pulses import Pulse, watch
from parviraptor_celery.statements import database_time
from parviraptor_celery.sweeping import next_lanes, rescue_expired

from . import dispatch, execution, kicks, registry
from .conf import settings
from .models import Event, Tick
from .states import EventStatus

logger = logging.getLogger("jaiminho_celery")

TICK = "relay"
BY_COMMAND = f"{TICK} by command"


def let_be_watched() -> None:
    """Let the queues' page for monitoring tell when the relay last ran, where it is installed."""
    watch(Pulse("relay", Tick, (TICK, BY_COMMAND), lambda: settings.RELAY_INTERVAL_SECONDS))


def note_command() -> None:
    """Remember that the command has relayed everything, which is no sweep by itself."""
    try:
        Tick.objects.note(BY_COMMAND, using=router.db_for_write(Tick))
    except Error as error:  # the events may be in another database, which is there
        logger.warning("the end of events_relay was not noted (%s)", type(error).__name__)


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
    """Publish everything of ``stream`` (None: of all) that is due, in this process.

    What has no order, and each lane, get their turns, so that none waits until the others are
    empty. Returns the number of events tried. What becomes due meanwhile waits for the next call.
    """
    rescue(using)
    done, until = 0, database_time(using)
    lanes, pool_waits = Lanes(using, stream), True
    while not budget.is_spent and (pool_waits or lanes.wait):
        if pool_waits:
            report = dispatch.relay_pool(using, _turn(budget), stream, until=until)
            budget.spend(report.rows)
            pool_waits, done = report.is_exhausted, done + report.rows
        if lanes.wait and not budget.is_spent:
            tried = lanes.relay(_turn(budget))
            budget.spend(tried)
            done += tried
    return done


def _turn(budget: Budget) -> Budget:
    return budget.part(budget.rows, settings.RELAY_SECONDS)


class Lanes:
    """Goes once round the lanes that wait, some at a time; a long one makes room for others."""

    def __init__(self, using: str, stream: str | None) -> None:
        self.using, self.rows = using, Event.rows(using).of_stream(stream)
        self.wait = True
        """Whether any is left."""
        self._newest = Event.rows(using).order_by("-id").values_list("pk", flat=True).first() or 0
        self._after: str = ""
        self._turns: list[str] = []

    def relay(self, budget: Budget) -> int:
        """Publish what the next lanes have; return the number of events tried."""
        if not self._turns and not self._find_more():
            self.wait = False
            return 0
        report = dispatch.relay_lanes(self.using, self._turns, budget)
        left_over = self._begun_before(report.left_over)
        self._turns = [*left_over[1:], *left_over[:1]]
        return report.rows

    def _begun_before(self, lanes: list[str]) -> list[str]:
        """Return the lanes that still hold what was there at first: some never get empty."""
        old = self.rows.waiting().order_by().filter(lane__in=lanes, pk__lte=self._newest)
        held = set(old.values_list("lane", flat=True).distinct()) if lanes else set()
        return [lane for lane in lanes if lane in held]

    def _find_more(self) -> bool:
        """Look for lanes behind the last ones; return whether there are any."""
        waiting = self.rows.lane_heads(EventStatus.WAITING, self._after, settings.SWEEP_LANES)
        if not (heads := dict(waiting)):
            return False
        self._after, self._turns = max(heads), self.rows.startable(heads)
        return True


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
