from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from parviraptor_celery import cleanup, registry
from parviraptor_celery.console import Progress, Stop, counted
from parviraptor_celery.exceptions import UnknownQueue
from parviraptor_celery.models import AbstractJob


class Command(BaseCommand):
    help = (
        "Deletes processed jobs that are older than their queue keeps them. "
        "SIGTERM or SIGINT ends it after the current chunk. "
        "Exit codes: 0 all done; 1 a queue was left out; 130 or 143 stopped before the end."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="only count what would be deleted"
        )
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--all-queues", action="store_true", help="clean every queue")
        which.add_argument("--queue", metavar="APP.MODEL", help="clean one, e.g. shop.ExportJob")

    def handle(
        self, *args: Any, dry_run: bool, all_queues: bool, queue: str | None, **options: Any
    ) -> None:
        queues = registry.all_queues() if all_queues else [self._get(queue)]
        with Stop() as stop:

            def clean(model: type[AbstractJob], using: str) -> None:
                if not stop.is_requested():
                    self.stdout.write(self._clean(model, using, dry_run, stop))

            left_out = registry.for_each_queue(clean, queues)
        if left_out:
            raise CommandError(f"{', '.join(left_out)} could not be cleaned.")
        stop.raise_if_requested()

    def _get(self, label: str | None) -> type[AbstractJob]:
        try:
            return registry.get_queue(label or "")
        except UnknownQueue as error:
            raise CommandError(str(error)) from error

    def _clean(self, queue: type[AbstractJob], using: str, dry_run: bool, stop: Stop) -> str:
        name = f"{queue._meta.label} in {using}"
        if cleanup.border_of(queue) is None:
            return f"{name}: keeps its jobs for ever"
        if dry_run:
            return f"{name}: would delete {counted(cleanup.count_old(queue, using), 'job')}"
        progress = Progress(self.stdout, name)
        try:
            deleted = cleanup.clean(queue, using, progress, is_stopped=stop.is_requested)
        finally:
            progress.end()
        return f"{name}: deleted {counted(deleted, 'job')}"
