from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from jaiminho_celery import cleanup, registry
from jaiminho_celery.states import EventStatus
from parviraptor_celery.console import Progress, Stop, counted


class Command(BaseCommand):
    help = (
        "Deletes events that were published, or skipped, longer ago than "
        "JAIMINHO_CONFIG['TIME_TO_DELETE']. SIGTERM or SIGINT ends it after the current chunk. "
        "Exit codes: 0 all done; 1 a database was left out; 130 or 143 stopped before the end."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--state",
            action="append",
            type=str.upper,
            choices=[state.value for state in cleanup.MOMENTS],
            help="which events go; may be given for each (default: SENT)",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="only count what would be deleted"
        )

    def handle(self, *args: Any, state: list[str] | None, dry_run: bool, **options: Any) -> None:
        states = [EventStatus(name) for name in state or [EventStatus.SENT]]
        deleted: list[int] = []
        with Stop() as stop:

            def clean(using: str) -> None:
                for state in states:
                    if dry_run:
                        self._count(using, state)
                    elif not stop.is_requested():
                        deleted.append(self._clean(using, state, stop))

            left_out = registry.for_each_alias(clean)
        if not dry_run:
            self.stdout.write(f"{counted(sum(deleted), 'event')} deleted")
        if left_out:
            raise CommandError(f"The outbox in {', '.join(left_out)} could not be cleaned.")
        stop.raise_if_requested()

    def _count(self, using: str, state: EventStatus) -> None:
        count = cleanup.count_old(using, state)
        self.stdout.write(f"{using}: would delete {counted(count, f'{state} event')}")

    def _clean(self, using: str, state: EventStatus, stop: Stop) -> int:
        progress = Progress(self.stdout, f"{using}: {state}")
        try:
            return cleanup.clean(using, progress, state=state, is_stopped=stop.is_requested)
        finally:
            progress.end()
