from __future__ import annotations

import math
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jaiminho_celery import registry, sweep
from jaiminho_celery.exceptions import UnknownStream
from jaiminho_celery.models import Event
from parviraptor_celery.console import counted
from parviraptor_celery.drains import Budget


class Command(BaseCommand):
    help = "Publishes the events that are due, then exits; with --run-in-loop, goes on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--run-in-loop", action="store_true", help="go on until SIGTERM or SIGINT"
        )
        parser.add_argument(
            "--loop-interval",
            type=float,
            default=1,
            metavar="SECONDS",
            help="pause between two rounds of the loop (default: 1)",
        )
        parser.add_argument("--stream", metavar="NAME", help="only this stream (default: all)")

    def handle(
        self,
        *args: Any,
        run_in_loop: bool,
        loop_interval: float,
        stream: str | None,
        **options: Any,
    ) -> None:
        if not (math.isfinite(loop_interval) and loop_interval > 0):
            raise CommandError("--loop-interval must be above zero.")
        self._require(stream)
        stop = threading.Event()
        if run_in_loop:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            if self.stdout.isatty():  # somebody waits for it to say something
                self.stdout.write(f"relaying every {loop_interval:g} s until SIGTERM or SIGINT")
        total, left_out = self._relay(stream, stop)
        while run_in_loop and not stop.wait(loop_interval):
            more, left_out = self._relay(stream, stop)
            total += more
        self.stdout.write(f"{counted(total, 'event')} tried")
        if left_out:
            raise CommandError(f"The outbox in {', '.join(left_out)} could not be read.")

    def _relay(self, stream: str | None, stop: threading.Event) -> tuple[int, list[str]]:
        """Relay once; return the number of events tried, and the databases left out."""
        tried: list[int] = []

        def relay(using: str) -> None:
            tried.append(sweep.relay_here(using, Budget.endless(stop.is_set), stream))

        left_out = registry.for_each_alias(relay)
        if stream is None:
            sweep.note_command()
        return sum(tried), left_out

    def _require(self, stream: str | None) -> None:
        if stream is None:
            return
        rows = [Event.rows(using).unsent().order_by() for using in registry.known_aliases()]
        waiting = {name for row in rows for name in row.values_list("stream", flat=True).distinct()}
        try:
            registry.require_stream(stream, waiting)
        except UnknownStream as error:
            raise CommandError(str(error)) from error
