"""What the demo breaks on purpose, and mends again."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .processes import Managed
from .stack import Stack

BOARD_DOWN_SECONDS = 5.0


class Sabotage(Protocol):
    """A fraud that the ledger has to notice; `accident` is the one during which it happens."""

    accident: str
    begin_at: float  # share of the departures that are accepted by then

    def commit(self) -> bool:
        """Try it; False if there is no opportunity yet."""


@dataclass
class Accident:
    """Breaks something once enough departures are accepted; mends it some seconds later."""

    name: str
    begin_at: int  # departures accepted by then
    lasts_seconds: float
    break_it: Callable[[], str]
    mend_it: Callable[[], str]
    sabotage: Sabotage | None = None
    _broken_since: float | None = field(default=None, init=False)
    over: bool = field(default=False, init=False)

    def advance(self, accepted: int) -> str | None:
        """Break or mend if it is time to; returns what was done, as news."""
        if self.over or accepted < self.begin_at:
            return None
        if self._broken_since is None:
            self._broken_since = time.monotonic()
            return self.break_it()
        if time.monotonic() - self._broken_since < self.lasts_seconds:
            return None
        if self.sabotage and not self.sabotage.commit():
            return None
        self.over = True
        return self.mend_it()


class Casualties:
    """The processes that accidents happen to; `current` are those that must be running now."""

    def __init__(self, stack: Stack, current: dict[str, Managed]) -> None:
        self._stack = stack
        self.current = current

    def kill_board(self) -> str:
        self.current.pop("board").kill()
        return f"the board is taken down (SIGKILL) for {BOARD_DOWN_SECONDS:g} s"

    def restart_board(self) -> str:
        self.current["board"] = self._stack.board()
        return "the board is up again"

    def kill_worker(self) -> str:
        worker = self.current.pop("worker")
        worker.kill()
        return f"the worker is killed (SIGKILL, pid {worker.pid})"

    def restart_worker(self) -> str:
        self.current["worker"] = self._stack.worker()
        return f"a new worker is started (pid {self.current['worker'].pid})"


def plan(
    total: int, casualties: Casualties, dice: random.Random, sabotage: Sabotage | None
) -> list[Accident]:
    """The board goes down in the second quarter or so, the worker is killed in the third."""
    accidents = [
        Accident(
            name="board",
            begin_at=int(total * dice.uniform(0.20, 0.35)),
            lasts_seconds=BOARD_DOWN_SECONDS,
            break_it=casualties.kill_board,
            mend_it=casualties.restart_board,
        ),
        Accident(
            name="worker",
            begin_at=int(total * dice.uniform(0.50, 0.70)),
            lasts_seconds=0.0,
            break_it=casualties.kill_worker,
            mend_it=casualties.restart_worker,
        ),
    ]
    for accident in accidents:
        if sabotage and sabotage.accident == accident.name:
            accident.sabotage = sabotage
            accident.begin_at = int(total * sabotage.begin_at)
    return accidents
