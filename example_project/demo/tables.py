"""The demo's own rows: emptied before a run, counted during it."""

from dataclasses import dataclass

from django.db.models import Model

from example_project.departures import overview
from example_project.departures.airports import STREAMS
from example_project.departures.models import (
    Aircraft,
    AircraftLeg,
    Departure,
    LandingFeeInvoice,
)
from jaiminho_celery.models import Event

# Children first: the jobs refer to the departures.
EMPTIED: tuple[type[Model], ...] = (AircraftLeg, LandingFeeInvoice, Aircraft, Departure)

OPEN = ("NEW", "PROCESSING", "DEFERRED")


@dataclass(frozen=True, slots=True)
class Counts:
    """How far things are, by the libraries' own account."""

    events_waiting: int
    legs_open: int
    legs_done: int
    invoices_open: int
    invoices_done: int

    @property
    def all_done(self) -> bool:
        return not (self.events_waiting or self.legs_open or self.invoices_open)


def empty() -> None:
    """Delete every departure with all that followed from it, and the outbox's rows for them."""
    for model in EMPTIED:
        model._default_manager.all().delete()
    Event.objects.filter(stream__in=STREAMS).delete()


def count() -> Counts:
    """Count what waits and what is finished. Reads only."""
    legs, invoices = overview.by_status(AircraftLeg), overview.by_status(LandingFeeInvoice)
    return Counts(
        events_waiting=Event.objects.filter(stream__in=STREAMS, sent_at=None).count(),
        legs_open=sum(legs.get(status, 0) for status in OPEN),
        legs_done=legs.get("PROCESSED", 0),
        invoices_open=sum(invoices.get(status, 0) for status in OPEN),
        invoices_done=invoices.get("PROCESSED", 0),
    )
