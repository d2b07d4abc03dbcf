from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from parviraptor_celery import foreground, pauses, registry
from parviraptor_celery.console import counted
from parviraptor_celery.exceptions import UnknownQueue
from parviraptor_celery.models import AbstractJob
from parviraptor_celery.texts import printable


class Command(BaseCommand):
    help = (
        "Runs one queue in the foreground, one job at a time and without a broker, "
        "until SIGTERM or SIGINT; the job that runs then is finished first."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("app_label", help="for example: shop")
        parser.add_argument("model", help="for example: ExportJob")

    def handle(self, *args: Any, app_label: str, model: str, **options: Any) -> None:
        try:
            queue = registry.get_queue(f"{app_label}.{model}")
        except UnknownQueue as error:
            raise CommandError(str(error)) from error
        stop = threading.Event()
        worker = foreground.ForegroundWorker(queue, stop)

        def request_stop(signum: int, frame: FrameType | None) -> None:
            self.stdout.write(f"{signal.Signals(signum).name}: stopping after the current job")
            stop.set()
            worker.tell_current_job()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, request_stop)
        until = " until SIGTERM or SIGINT" if self.stdout.isatty() else ""
        self.stdout.write(f"processing {queue._meta.label}{until}")
        registry.for_each_queue(self._tell_of_pause, [queue])
        total = worker.run()
        self.stdout.write(f"stopped after {counted(total, 'job')}")

    def _tell_of_pause(self, queue: type[AbstractJob], using: str) -> None:
        """Say why nothing happens, where somebody has paused the whole queue."""
        pause = pauses.pause_of(queue, using, None)
        if pause is not None:
            told = f": {printable(pause.reason)}" if pause.reason else ""
            self.stdout.write(f"{queue._meta.label} in {using} is paused, nothing begins{told}")
