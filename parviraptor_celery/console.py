"""What commands say to a person, and hear from one. Both apps use this module."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from django.core.management.base import CommandError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def counted(number: int, noun: str) -> str:
    """Return ``1 job`` or ``2 jobs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Stop:
    """Notes SIGTERM and SIGINT while the block runs, for a command that ends at a good moment.

    The second signal has its usual effect, should that moment not come. In a thread, where no
    signal arrives, it never stops anything.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._kept: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._kept = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def is_requested(self) -> bool:
        return self.signal is not None

    def raise_if_requested(self) -> None:
        """End the command as stopped.

        Raises:
            CommandError: with the exit code that shells expect, 128 plus the signal's number.
        """
        if self.signal is not None:
            code = 128 + self.signal
            raise CommandError(f"Stopped by {self.signal.name} before the end.", returncode=code)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._kept = {}


class Progress:
    """Shows on a terminal how many rows are done, and how fast; writes nothing into a pipe."""

    def __init__(self, out: Any, what: str) -> None:
        self._out, self._what = out, what
        self._began, self._has_shown = time.monotonic(), False

    def __call__(self, rows: int) -> None:
        if self._out.isatty():
            rate = rows / max(time.monotonic() - self._began, 0.001)
            # Of a fixed width: a shorter line would leave the end of the longer one behind.
            line = f"\r{self._what}: {rows} rows deleted, {rate:6.0f} rows/s"
            self._out.write(line, ending="")
            self._out.flush()
            self._has_shown = True

    def end(self) -> None:
        """Leave the last line as it stands."""
        if self._has_shown:
            self._out.write("")
