from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from jaiminho_celery import cleanup


class Command(BaseCommand):
    help = "Deletes published events that are older than JAIMINHO_CONFIG['TIME_TO_DELETE']."

    def handle(self, *args: Any, **options: Any) -> None:
        deleted = cleanup.clean_all(self._show)
        self.stdout.write(f"{deleted} events deleted")

    def _show(self, deleted: int) -> None:
        if self.stdout.isatty():
            self.stdout.write(f"  {deleted} deleted so far\r", ending="")
