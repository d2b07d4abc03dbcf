"""The ledger of the demo notices what it must notice."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import supervision

if TYPE_CHECKING:
    from example_project.demo.ledger import AircraftRecord, Evidence, Ledger, check
    from example_project.demo.report import render
    from example_project.demo.timetable import Flight, read_flights
else:  # without the example's Celery application, which would become the tests' too
    ledger = importlib.import_module(f"{supervision.PACKAGE}.ledger")
    timetable = importlib.import_module(f"{supervision.PACKAGE}.timetable")
    AircraftRecord, Evidence, check = ledger.AircraftRecord, ledger.Evidence, ledger.check
    Flight, read_flights = timetable.Flight, timetable.read_flights
    render = importlib.import_module(f"{supervision.PACKAGE}.report").render


def flight(number: int, origin: str, tailnum: str, dest: str, minutes: int | None) -> Flight:
    return Flight(f"2013-01-01T06:0{number}", "UA", number, tailnum, origin, dest, 0, minutes, 500)


A1 = flight(1, "EWR", "N1", "ORD", 100)
B1 = flight(2, "JFK", "N2", "LAX", 300)
A2 = flight(3, "EWR", "N1", "BOS", None)
A3 = flight(4, "EWR", "N1", "MIA", 50)
B2 = flight(5, "EWR", "N2", "DEN", 200)
FLIGHTS = [A1, B1, A2, A3, B2]


@pytest.fixture
def honest() -> Evidence:
    """Five departures of which everything came, in order."""
    return Evidence(
        asked=5,
        accepted=FLIGHTS,
        saved=[f.key for f in FLIGHTS],
        board=[(f.origin, f.key) for f in FLIGHTS],
        legs=[(A1.key, 1), (B1.key, 1), (A2.key, 2), (A3.key, 3), (B2.key, 2)],
        invoices=[f.key for f in FLIGHTS],
        aircraft={"N1": AircraftRecord(3, 150, "MIA"), "N2": AircraftRecord(2, 500, "DEN")},
        seconds=1.0,
    )


def on_board(evidence: Evidence, *flights: Flight) -> Ledger:
    return check(replace(evidence, board=[(f.origin, f.key) for f in flights]))


def test_is_in_order_when_everything_came(honest: Evidence) -> None:
    ledger = check(honest)
    assert ledger.ok
    assert (ledger.board.delivered, ledger.legs.processed, ledger.invoices.processed) == (5, 5, 5)
    assert "OK: nothing was lost" in render(ledger)


def test_notices_a_departure_that_was_not_accepted(honest: Evidence) -> None:
    assert check(replace(honest, asked=6)).faults == ["1 departures were not accepted"]


def test_notices_a_departure_that_the_database_lost(honest: Evidence) -> None:
    assert check(replace(honest, saved=honest.saved[1:])).departures_lost == 1


class TestBoard:
    def test_notices_a_lost_message(self, honest: Evidence) -> None:
        ledger = on_board(honest, A1, B1, A3, B2)
        assert ledger.faults == ["1 board messages were lost"]
        assert "1 board messages were lost" in render(ledger)

    def test_notices_that_the_last_message_is_lost(self, honest: Evidence) -> None:
        assert on_board(honest, A1, B1, A2, A3).board.lost == 1

    def test_notices_two_messages_that_are_swapped(self, honest: Evidence) -> None:
        assert on_board(honest, A1, B1, A3, A2, B2).faults == ["1 board messages were out of order"]

    def test_allows_any_order_between_airports(self, honest: Evidence) -> None:
        assert on_board(honest, A1, A2, A3, B2, B1).ok

    def test_counts_a_repetition_of_the_latest_and_allows_it(self, honest: Evidence) -> None:
        ledger = on_board(honest, A1, A1, B1, A2, A3, B1, B2)
        assert (ledger.board.duplicated, ledger.ok) == (2, True)

    def test_notices_an_old_message_that_comes_again(self, honest: Evidence) -> None:
        ledger = on_board(honest, A1, B1, A2, A1, A3, B2)
        assert (ledger.board.duplicated, ledger.board.out_of_order) == (1, 1)

    def test_notices_each_message_of_an_old_run_that_comes_again(self, honest: Evidence) -> None:
        ledger = on_board(honest, A1, A2, A1, A2, A3, B1, B2)
        assert (ledger.board.duplicated, ledger.board.out_of_order) == (2, 2)

    def test_notices_a_message_of_a_departure_that_was_never_accepted(
        self, honest: Evidence
    ) -> None:
        stranger = flight(9, "EWR", "N9", "ORD", 1)
        assert on_board(honest, *FLIGHTS, stranger).board.unexpected == 1

    def test_notices_a_message_on_the_wrong_stream(self, honest: Evidence) -> None:
        board = [("LGA" if f is B1 else f.origin, f.key) for f in FLIGHTS]
        ledger = check(replace(honest, board=board))
        assert (ledger.board.lost, ledger.board.unexpected) == (1, 1)


class TestLegs:
    def test_notices_a_lost_leg(self, honest: Evidence) -> None:
        assert check(replace(honest, legs=honest.legs[:-1])).legs.lost == 1

    def test_notices_two_legs_that_are_swapped(self, honest: Evidence) -> None:
        legs = [(A1.key, 1), (B1.key, 1), (A2.key, 3), (A3.key, 2), (B2.key, 2)]
        assert check(replace(honest, legs=legs)).faults == ["1 aircraft legs were out of order"]

    def test_notices_a_finished_leg_without_a_number(self, honest: Evidence) -> None:
        legs = [(A1.key, None), *honest.legs[1:]]
        assert check(replace(honest, legs=legs)).legs.out_of_order == 1

    def test_notices_a_second_job_for_the_same_departure(self, honest: Evidence) -> None:
        assert check(replace(honest, legs=[*honest.legs, (A3.key, 4)])).legs.unexpected == 1

    @pytest.mark.parametrize(
        "record",
        [
            pytest.param(AircraftRecord(4, 150, "MIA"), id="a leg flown twice"),
            pytest.param(AircraftRecord(3, 149, "MIA"), id="a minute missing"),
            pytest.param(AircraftRecord(3, 150, "BOS"), id="the wrong airport at the end"),
        ],
    )
    def test_notices_a_wrong_record(self, honest: Evidence, record: AircraftRecord) -> None:
        ledger = check(replace(honest, aircraft={**honest.aircraft, "N1": record}))
        assert ledger.legs.wrong_aircraft == ("N1",)
        assert "N1" in render(ledger)

    def test_notices_an_aircraft_that_is_missing_or_made_up(self, honest: Evidence) -> None:
        aircraft = {"N1": honest.aircraft["N1"], "N9": AircraftRecord(1, 1, "ORD")}
        ledger = check(replace(honest, aircraft=aircraft))
        assert ledger.legs.wrong_aircraft == ("N2", "N9")


class TestInvoices:
    def test_notices_a_lost_invoice(self, honest: Evidence) -> None:
        assert check(replace(honest, invoices=honest.invoices[1:])).faults == [
            "1 invoices were lost"
        ]

    def test_notices_an_invoice_too_many(self, honest: Evidence) -> None:
        invoices = [*honest.invoices, A1.key]
        assert check(replace(honest, invoices=invoices)).invoices.unexpected == 1


def test_the_file_has_every_departure_once_and_in_order_of_time() -> None:
    flights = read_flights()
    assert len({f.key for f in flights}) == len(flights) == 6064
    assert [f.departed_at for f in flights] == sorted(f.departed_at for f in flights)
    assert sum(f.air_time_min is None for f in flights) == 21
