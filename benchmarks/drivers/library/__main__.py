"""The driver of this library. It uses public names only: what is measured is what users get."""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from typing import Any, NoReturn

from benchmarks.drivers.django_driver import DjangoDriver, Send
from benchmarks.drivers.library.celery import nothing
from benchmarks.drivers.protocol import answer, peak_mib
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.send import save_to_outbox_stream

NUMBERS: list[int] = []
SEEDS = 1000


@save_to_outbox_stream("benchmarks", PublishStrategyType.PUBLISH_ON_COMMIT)
def note(number: int) -> None:
    NUMBERS.append(number)


@save_to_outbox_stream("benchmarks-in-order", PublishStrategyType.KEEP_ORDER)
def note_in_order(number: int) -> None:
    NUMBERS.append(number)


class Library(DjangoDriver):
    settings = "benchmarks.drivers.library.settings"
    packages = ("Django", "celery", "kombu", "redis", "amqp", "psycopg")

    def sender(self, kind: str) -> Send:
        return {"message": nothing.delay, "function": note, "in-order": note_in_order}[kind]

    def calls(self) -> int:
        return len(NUMBERS)

    def fill(self, messages: int) -> NoReturn:
        """Commit that many messages, and die before the first hook could publish one."""
        from django.db import transaction

        with transaction.atomic():
            transaction.on_commit(lambda: _die({"messages": messages}))
            for number in range(messages):
                nothing.delay(number)
        raise AssertionError("the hook that ends this process did not run")

    def make_due(self) -> dict[str, Any]:
        """Let everything wait for the relay, due now, as if the dead hooks' leases had run out."""
        from django.utils import timezone

        from jaiminho_celery.models import Event

        resting = {"lease_until": None, "running_lane": None, "leased_by": "", "error_count": 0}
        Event.objects.update(status="WAITING", run_after=timezone.now(), **resting)
        return {"messages": Event.objects.filter(status="WAITING").count()}

    def multiply(self, state: str, rows: int) -> dict[str, Any]:
        """Copy the first SEEDS rows, signature and all, until there are `rows` more of them.

        The states: "due", "parked" (due in a day), "sent" (now), "old" (sent 30 days ago).
        """
        from django.db import connection

        columns = _columns(state)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO jaiminho_celery_event ({', '.join(columns)})"
                f" SELECT {', '.join(columns.values())} FROM generate_series(1, %s), (SELECT *"
                " FROM jaiminho_celery_event ORDER BY id LIMIT %s) AS seed",
                [rows // SEEDS, SEEDS],
            )
            return {"rows": cursor.rowcount}

    def clean(self) -> dict[str, Any]:
        """Run the cleaner; return its seconds, and what it left."""
        from django.core.management import call_command

        from jaiminho_celery.models import Event

        before = Event.objects.count()
        started = time.perf_counter()
        call_command("event_cleaner", stdout=sys.stderr)
        seconds = time.perf_counter() - started
        left = Event.objects.count()
        return {"seconds": seconds, "deleted": before - left, "kept": left, "mib": peak_mib()}


def _columns(state: str) -> dict[str, str]:
    """Return the columns of a copy, with the SQL expression of each."""
    from jaiminho_celery.models import Event

    columns = {field.column: field.column for field in Event._meta.concrete_fields}
    del columns["id"]
    if state == "parked":
        columns["run_after"] = _ago(timedelta(days=-1))
    elif state in ("sent", "old"):
        age = timedelta(days=30 if state == "old" else 0)
        columns |= {"status": "'SENT'", "sent_at": _ago(age), "modified_at": _ago(age)}
    return columns


def _ago(age: timedelta) -> str:
    return f"now() - interval '{age.total_seconds():.0f} seconds'"


def _die(result: dict[str, Any]) -> NoReturn:
    answer(result)
    os._exit(0)


if __name__ == "__main__":
    Library().main()
