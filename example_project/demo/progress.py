"""Shows how far the run is: one line that refreshes on a terminal, else a line now and then."""

import sys
import time
from typing import TextIO

TERMINAL_SECONDS = 0.5
PLAIN_SECONDS = 2.0


class Progress:
    """Prints news at once, and the state of things every so many seconds."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._every = TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS
        self._start = time.monotonic()
        self._shown_at = 0.0
        self._refreshing = False

    @property
    def due(self) -> bool:
        """Whether it is time to show the state again."""
        return time.monotonic() - self._shown_at >= self._every

    def say(self, news: str) -> None:
        """Print a line that stays."""
        self._end_line()
        self._print(f"{self._clock()}  {news}\n")

    def show(self, state: str) -> None:
        """Print the state; on a terminal it replaces the state shown before."""
        self._shown_at = time.monotonic()
        if self._terminal:
            self._print(f"\r\033[K{self._clock()}  {state}")
            self._refreshing = True
        else:
            self._print(f"{self._clock()}  {state}\n")

    def close(self) -> None:
        """Leave the line that refreshes."""
        self._end_line()

    def _end_line(self) -> None:
        if self._refreshing:
            self._print("\n")
            self._refreshing = False

    def _clock(self) -> str:
        return f"{time.monotonic() - self._start:5.1f} s"

    def _print(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
