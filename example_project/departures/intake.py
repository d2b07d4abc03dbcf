"""Taking a departure in: the one transaction that this example is about."""

from django.db import transaction

from example_project.departures.models import AircraftLeg, Departure, LandingFeeInvoice
from example_project.departures.outbox import ANNOUNCE


@transaction.atomic
def accept(departure: Departure) -> None:
    """Save the departure with all that follows from it; either everything is there, or nothing.

    Raises IntegrityError if the departure is known already.
    """
    departure.save(force_insert=True)
    ANNOUNCE[departure.origin](departure.as_message())
    AircraftLeg.enqueue(departure=departure, tailnum=departure.tailnum)
    LandingFeeInvoice.enqueue(departure=departure)
