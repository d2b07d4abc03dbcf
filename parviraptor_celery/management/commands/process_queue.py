from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from parviraptor_celery import foreground, registry
from parviraptor_celery.exceptions import UnknownQueue


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
        self.stdout.write(f"processing {queue._meta.label}")
        total = worker.run()
        self.stdout.write(f"stopped after {total} jobs")
