"""Gathers what the ledger compares: reads the board's journal and the database, changes nothing."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from django.utils import timezone

from example_project.departures.models import (
    Aircraft,
    AircraftLeg,
    Departure,
    LandingFeeInvoice,
)

from .ledger import AircraftRecord, Evidence
from .timetable import Flight, Key

_KEY_FIELDS = ("departed_at", "carrier", "flight")
_KEY_OF_JOB = tuple(f"departure__{field}" for field in _KEY_FIELDS)


def gather(asked: int, accepted: Sequence[Flight], journal: Path, seconds: float) -> Evidence:
    """Everything that can be seen now of the departures that were accepted."""
    legs = AircraftLeg.objects.filter(status=AircraftLeg.Status.PROCESSED)
    invoices = LandingFeeInvoice.objects.filter(
        status=LandingFeeInvoice.Status.PROCESSED, fee__isnull=False
    )
    return Evidence(
        asked=asked,
        accepted=accepted,
        saved=[_key(*row) for row in Departure.objects.values_list(*_KEY_FIELDS)],
        board=list(read_journal(journal)),
        legs=[(_key(*row[:3]), row[3]) for row in legs.values_list(*_KEY_OF_JOB, "leg_number")],
        invoices=[_key(*row) for row in invoices.values_list(*_KEY_OF_JOB)],
        aircraft={a.pk: _record(a) for a in Aircraft.objects.all()},
        seconds=seconds,
    )


def read_journal(journal: Path) -> Iterator[tuple[str, Key]]:
    """(origin, departure) of every message on the board, in the order of arrival."""
    for line in journal.read_text().splitlines():
        message = json.loads(line)
        departed_at = datetime.fromisoformat(message["departed_at"])
        yield message["origin"], _key(departed_at, message["carrier"], message["flight"])


def count_journal(journal: Path) -> int:
    """How many messages have arrived on the board, repetitions included."""
    return journal.read_bytes().count(b"\n")


def _key(departed_at: datetime, carrier: str, flight: int) -> Key:
    """The natural key as the file has it: New York's time, to the minute."""
    return timezone.make_naive(departed_at).isoformat(timespec="minutes"), carrier, flight


def _record(aircraft: Aircraft) -> AircraftRecord:
    return AircraftRecord(aircraft.legs, aircraft.minutes_flown, aircraft.last_airport)
