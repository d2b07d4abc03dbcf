"""The departures of the CSV file, as the demo posts and checks them."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DEPARTURES_CSV = Path(__file__).resolve().parent.parent / "departures/data/departures-2013-w1.csv"

# What makes a departure unique: local time of departure (ISO, to the minute), carrier, flight.
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Flight:
    """One row of the file. Its position in the file is the order of the world."""

    departed_at: str
    carrier: str
    flight: int
    tailnum: str
    origin: str
    dest: str
    dep_delay_min: int
    air_time_min: int | None
    distance_mi: int

    @property
    def key(self) -> Key:
        return (self.departed_at, self.carrier, self.flight)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_flights(limit: int | None = None, path: Path = DEPARTURES_CSV) -> list[Flight]:
    """The first `limit` departures of the file, or all; ValueError names a row that is wrong."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))[:limit]
    return [_flight(row, line) for line, row in enumerate(rows, start=2)]


def _flight(row: dict[str, str], line: int) -> Flight:
    try:
        return Flight(
            departed_at=row["departed_at"],
            carrier=row["carrier"],
            flight=int(row["flight"]),
            tailnum=row["tailnum"],
            origin=row["origin"],
            dest=row["dest"],
            dep_delay_min=int(row["dep_delay_min"]),
            air_time_min=int(row["air_time_min"]) if row["air_time_min"] else None,
            distance_mi=int(row["distance_mi"]),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"Line {line} of the departures is not one: {row} ({error!r})") from error
