"""The verbs that all Django peers share: migrate, fill, send."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from .protocol import Driver
from .statistics import percentiles

WARM_UP = 50
TEN = 10
PAUSE_SECONDS = 0.05

Send = Callable[[int], Any]


class DjangoDriver(Driver):
    """A peer with Django settings, and kinds of sends that are called inside a transaction."""

    settings: str

    def main(self) -> None:
        os.environ["DJANGO_SETTINGS_MODULE"] = self.settings
        import django

        django.setup()
        super().main()

    def sender(self, kind: str) -> Send:
        """Return what sends message number n; called inside a transaction."""
        raise NotImplementedError

    def calls(self) -> int:
        """Return how often the decorated function itself has run in this process."""
        return 0

    def migrate(self) -> None:
        from django.core.management import call_command

        call_command("migrate", verbosity=0, run_syncdb=True)

    def fill(self, messages: int) -> dict[str, Any]:
        """Send that many messages in one transaction; afterwards they wait for the relay."""
        from django.db import transaction

        send = self.sender("message")
        with transaction.atomic():
            for number in range(messages):
                send(number)
        return {"messages": messages}

    def send(self, sends: int, kind: str) -> dict[str, Any]:
        """Time transactions of one INSERT, by tens with and without a send.

        What a send leaves to a thread slows down the sends after it, and is counted there; it does
        not slow down those without one, which begin after a pause.

        Returns p50 and p95, in milliseconds, of the call, of the whole transaction (COMMIT and
        hooks included) and of the transaction without a send.
        """
        send = self.sender(kind)
        for number in range(WARM_UP):
            _transaction(number, None)
            _transaction(number, send)
        without, calls, whole = [], [], []
        for first in range(0, sends, TEN):
            ten = range(first, min(first + TEN, sends))
            time.sleep(PAUSE_SECONDS)
            without += [_transaction(number, None)[1] for number in ten]
            timed = [_transaction(number, send) for number in ten]
            calls += [call for call, _ in timed]
            whole += [block for _, block in timed]
        figures = {"call": calls, "with": whole, "without": without}
        result = {f"{name}_{p}": v for name in figures for p, v in percentiles(figures[name])}
        result |= {
            f"added_{p}": result[f"with_{p}"] - result[f"without_{p}"] for p in ("p50", "p95")
        }
        return {"sent": WARM_UP + sends, "calls": self.calls(), **result}


def _transaction(number: int, send: Send | None) -> tuple[float, float]:
    """Insert an order and perhaps send; return milliseconds of the call and of everything."""
    from django.db import transaction

    from .shop.models import Order

    called = answered = started = time.perf_counter()
    with transaction.atomic():
        Order.objects.create(reference=number)
        if send is not None:
            called = time.perf_counter()
            send(number)
            answered = time.perf_counter()
    return 1e3 * (answered - called), 1e3 * (time.perf_counter() - started)
