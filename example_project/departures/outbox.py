"""What leaves the house through the outbox: one ordered stream per airport.

Three functions rather than one, because a function belongs to the stream it is decorated with.
Each is called inside the transaction that saves the departure, and runs later, in the relay, in
the order in which the departures were saved.
"""

from collections.abc import Callable
from typing import Any

from example_project.departures.airports import Airport, stream_of
from example_project.departures.services import show_on_board
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.send import save_to_outbox_stream

KEEP_ORDER = PublishStrategyType.KEEP_ORDER


@save_to_outbox_stream(stream_of(Airport.EWR), overwrite_strategy_with=KEEP_ORDER)
def announce_from_ewr(message: dict[str, Any]) -> None:
    show_on_board(message)


@save_to_outbox_stream(stream_of(Airport.JFK), overwrite_strategy_with=KEEP_ORDER)
def announce_from_jfk(message: dict[str, Any]) -> None:
    show_on_board(message)


@save_to_outbox_stream(stream_of(Airport.LGA), overwrite_strategy_with=KEEP_ORDER)
def announce_from_lga(message: dict[str, Any]) -> None:
    show_on_board(message)


ANNOUNCE: dict[str, Callable[[dict[str, Any]], None]] = {
    Airport.EWR: announce_from_ewr,
    Airport.JFK: announce_from_jfk,
    Airport.LGA: announce_from_lga,
}
