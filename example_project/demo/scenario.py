"""The run itself: post, break, mend, wait until everything is done, and check."""

import random
import time
from collections.abc import Sequence

from . import accidents, evidence, ledger, sabotage, tables
from .options import Options
from .places import Places
from .poster import Poster
from .processes import Managed
from .progress import Progress
from .stack import Stack
from .timetable import Flight

PRICING_OUTAGE_SECONDS = 6.0
POLL_SECONDS = 0.1
COUNT_SECONDS = 0.5


class Scenario:
    """One run on processes that are started here and stopped by the supervisor."""

    def __init__(
        self, options: Options, stack: Stack, places: Places, flights: Sequence[Flight]
    ) -> None:
        self._options = options
        self._places = places
        self._stack = stack
        self._flights = flights
        self._progress = Progress()
        self._counts = tables.Counts(0, 0, 0, 0, 0)
        self._counted_at = 0.0

    def run(self) -> ledger.Ledger:
        """Play it to the end or to the deadline, and return what the ledger says."""
        casualties = accidents.Casualties(self._stack, self._start_processes())
        planned = self._plan(casualties)
        poster = Poster(self._places.web_port, self._flights)
        self._progress.say(f"posting {len(self._flights)} departures; pricing is down at first")
        started = time.monotonic()
        poster.start()
        try:
            self._play(poster, planned, casualties, started + self._options.deadline)
        finally:
            poster.stop()
            self._progress.close()
        return self._check(poster, time.monotonic() - started)

    def _start_processes(self) -> dict[str, Managed]:
        stack = self._stack
        return {
            "board": stack.board(),
            "pricing": stack.pricing(PRICING_OUTAGE_SECONDS),
            "web": stack.web(),
            "worker": stack.worker(),
            "beat": stack.beat(),
        }

    def _plan(self, casualties: accidents.Casualties) -> list[accidents.Accident]:
        fraud = sabotage.SABOTAGE[self._options.sabotage]() if self._options.sabotage else None
        dice = random.Random(self._options.seed)  # noqa: S311 - no secret hangs on it
        return accidents.plan(len(self._flights), casualties, dice, fraud)

    def _play(
        self,
        poster: Poster,
        planned: Sequence[accidents.Accident],
        casualties: accidents.Casualties,
        deadline: float,
    ) -> None:
        while not self._is_done(poster, planned):
            if time.monotonic() > deadline:
                self._progress.say(f"the deadline of {self._options.deadline:g} s has passed")
                return
            if poster.problem:
                raise poster.problem
            _raise_if_one_died(casualties.current)
            accepted = len(poster.accepted)
            for accident in planned:
                if news := accident.advance(accepted):
                    self._progress.say(news)
            self._show(accepted)
            time.sleep(POLL_SECONDS)

    def _is_done(self, poster: Poster, planned: Sequence[accidents.Accident]) -> bool:
        """Everything posted, broken, mended, sent and processed; counted anew if it looks so."""
        if time.monotonic() - self._counted_at > COUNT_SECONDS:
            self._counted_at = time.monotonic()
            self._counts = tables.count()
        posted_and_mended = poster.finished and all(accident.over for accident in planned)
        # A count from before the last departure was accepted would not know of it.
        return posted_and_mended and self._counts.all_done and tables.count().all_done

    def _show(self, accepted: int) -> None:
        if self._progress.due:
            counts, total = self._counts, len(self._flights)
            board = evidence.count_journal(self._places.journal)
            width = len(str(total))
            self._progress.show(
                f"accepted {accepted:{width}}/{total}  board {board:{width}}"
                f"  legs {counts.legs_done:{width}}  invoices {counts.invoices_done:{width}}"
            )

    def _check(self, poster: Poster, seconds: float) -> ledger.Ledger:
        return ledger.check(
            evidence.gather(len(self._flights), poster.accepted, self._places.journal, seconds)
        )


def _raise_if_one_died(current: dict[str, Managed]) -> None:
    for process in current.values():
        if process.poll() is not None:
            raise process.failure(f"died by itself (exit status {process.poll()})")
