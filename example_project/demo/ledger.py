"""The ledger: what became of every departure that was accepted. Pure, it only compares.

It trusts nothing that the libraries say about themselves. Evidence is what came out at the other
end: the board's journal, the aircraft's records, and the results that the jobs left. The one
thing taken from a job's row is which departure it was for and that it is finished; the engine's
ids, times and attempts prove nothing here.

How order is judged:

- *Board*, per origin airport: the first arrival of each message must follow the order of posting.
  A message may come twice (delivery is at least once), but a repetition may only repeat what
  this stream delivered last; anything older coming again counts as out of order too.
- *Aircraft legs*, per tail number: the leg numbers that `process()` gave out must rise in the
  order of posting, and the aircraft's record (legs, minutes flown, last airport) must be what the
  file of departures adds up to. A leg that ran twice shows there, even if the job was
  recorded once.

How losses are judged: every accepted departure must be in the database, be on the board at least
once, and have a finished leg and a finished invoice with a fee.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .timetable import Flight, Key


@dataclass(frozen=True, slots=True)
class AircraftRecord:
    """What the database says of one aircraft."""

    legs: int
    minutes_flown: int
    last_airport: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was asked for, and what can be seen of it afterwards."""

    asked: int  # departures that were to be posted
    accepted: Sequence[Flight]  # answered with 201, in the order of the file
    saved: Sequence[Key]  # departures in the database
    board: Sequence[tuple[str, Key]]  # (origin, departure), in the order of arrival
    legs: Sequence[tuple[Key, int | None]]  # finished legs: departure, leg number
    invoices: Sequence[Key]  # finished invoices that have a fee
    aircraft: Mapping[str, AircraftRecord]  # by tail number
    seconds: float


@dataclass(frozen=True, slots=True)
class BoardCount:
    """Messages of one stream, or of all of them."""

    delivered: int = 0  # different messages
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unexpected: int = 0  # never accepted, or on a stream where they don't belong

    def __add__(self, other: "BoardCount") -> "BoardCount":
        return BoardCount(
            self.delivered + other.delivered,
            self.lost + other.lost,
            self.duplicated + other.duplicated,
            self.out_of_order + other.out_of_order,
            self.unexpected + other.unexpected,
        )


@dataclass(frozen=True, slots=True)
class LegCount:
    """Legs flown, and aircraft whose record is not what the file adds up to."""

    processed: int = 0
    lost: int = 0
    out_of_order: int = 0
    unexpected: int = 0
    wrong_aircraft: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InvoiceCount:
    """Invoices with a fee."""

    processed: int = 0
    lost: int = 0
    unexpected: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """The result. `ok` if nothing was lost, out of order or made up."""

    departures_asked: int
    departures_accepted: int
    departures_lost: int
    board: BoardCount
    legs: LegCount
    invoices: InvoiceCount
    seconds: float

    @property
    def faults(self) -> list[str]:
        """What is wrong, one sentence each; duplicates on the board are allowed."""
        counted = [
            (self.departures_asked - self.departures_accepted, "departures were not accepted"),
            (self.departures_lost, "accepted departures are not in the database"),
            (self.board.lost, "board messages were lost"),
            (self.board.out_of_order, "board messages were out of order"),
            (self.board.unexpected, "board messages should not exist"),
            (self.legs.lost, "aircraft legs were lost"),
            (self.legs.out_of_order, "aircraft legs were out of order"),
            (self.legs.unexpected, "aircraft legs should not exist"),
            (len(self.legs.wrong_aircraft), "aircraft have a wrong record"),
            (self.invoices.lost, "invoices were lost"),
            (self.invoices.unexpected, "invoices should not exist"),
        ]
        return [f"{number} {what}" for number, what in counted if number]

    @property
    def ok(self) -> bool:
        return not self.faults


def check(evidence: Evidence) -> Ledger:
    """Compare what was accepted with what came of it."""
    saved = set(evidence.saved)
    return Ledger(
        departures_asked=evidence.asked,
        departures_accepted=len(evidence.accepted),
        departures_lost=sum(flight.key not in saved for flight in evidence.accepted),
        board=_check_board(evidence),
        legs=_check_legs(evidence),
        invoices=_check_invoices(evidence),
        seconds=evidence.seconds,
    )


def _check_board(evidence: Evidence) -> BoardCount:
    posted: dict[str, list[Key]] = defaultdict(list)
    for flight in evidence.accepted:
        posted[flight.origin].append(flight.key)
    arrived: dict[str, list[Key]] = defaultdict(list)
    for origin, key in evidence.board:
        arrived[origin].append(key)
    origins = posted.keys() | arrived.keys()
    return sum((_check_stream(posted[o], arrived[o]) for o in origins), start=BoardCount())


def _check_stream(posted: Sequence[Key], arrived: Sequence[Key]) -> BoardCount:
    position = {key: index for index, key in enumerate(posted)}
    expected = [position[key] for key in arrived if key in position]
    seen: set[int] = set()
    out_of_order = 0
    highest = latest = -1
    for index in expected:
        out_of_order += index != latest if index in seen else index < highest
        seen.add(index)
        highest, latest = max(highest, index), index
    return BoardCount(
        delivered=len(seen),
        lost=len(posted) - len(seen),
        duplicated=len(expected) - len(seen),
        out_of_order=out_of_order,
        unexpected=len(arrived) - len(expected),
    )


def _check_legs(evidence: Evidence) -> LegCount:
    numbers: dict[Key, int | None] = dict(evidence.legs)
    by_tailnum: dict[str, list[Flight]] = defaultdict(list)
    for flight in evidence.accepted:
        by_tailnum[flight.tailnum].append(flight)
    processed, surplus = _match(evidence.accepted, (key for key, _ in evidence.legs))
    tailnums = sorted(by_tailnum.keys() | evidence.aircraft.keys())
    return LegCount(
        processed=processed,
        lost=len(evidence.accepted) - processed,
        out_of_order=sum(
            _falls([numbers[f.key] for f in flights if f.key in numbers])
            for flights in by_tailnum.values()
        ),
        unexpected=surplus,
        wrong_aircraft=tuple(
            tailnum
            for tailnum in tailnums
            if evidence.aircraft.get(tailnum) != _expected_record(by_tailnum[tailnum])
        ),
    )


def _falls(leg_numbers: Iterable[int | None]) -> int:
    """How many of these are not above all that came before; a finished leg without a number too."""
    falls, highest = 0, 0
    for number in leg_numbers:
        if number is None or number <= highest:
            falls += 1
        else:
            highest = number
    return falls


def _expected_record(flights: Sequence[Flight]) -> AircraftRecord | None:
    if not flights:
        return None
    minutes = sum(flight.air_time_min or 0 for flight in flights)
    return AircraftRecord(len(flights), minutes, flights[-1].dest)


def _check_invoices(evidence: Evidence) -> InvoiceCount:
    processed, surplus = _match(evidence.accepted, evidence.invoices)
    return InvoiceCount(processed, len(evidence.accepted) - processed, surplus)


def _match(accepted: Sequence[Flight], results: Iterable[Key]) -> tuple[int, int]:
    """How many accepted departures have a result, and how many results are one too many."""
    counted = Counter(results)
    matched = sum(flight.key in counted for flight in accepted)
    return matched, counted.total() - matched
