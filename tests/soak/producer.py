"""A process that writes business rows together with jobs, events and messages.

python -m tests.soak.producer --seed 7

It ends on SIGTERM, after the transaction that it is in.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import time
import uuid
from collections.abc import Callable

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.soak.project.settings")
django.setup()

from django.db import Error, connection, transaction  # noqa: E402

from tests.soak import bodies, stalls  # noqa: E402
from tests.soak.project import models, outbox, settings  # noqa: E402
from tests.soak.project.celery import receive  # noqa: E402

PAUSE_SECONDS = 0.05
"""The average between two transactions."""

MOST_WAITING = 200
"""Jobs and events; a producer waits while there are more, so that a slow machine keeps up."""

LOOK_EVERY = 10
"""Transactions between two looks at how many wait."""

ROLLED_BACK, SAVEPOINT, CUT_OFF, KILLED = 0.08, 0.12, 0.14, 0.15
"""Shares of the transactions that end so, each beginning where the one before ends."""


class RolledBack(Exception):
    """The producer changes its mind."""


class Producer:
    """One thing after another: a transaction of a few items, then a pause."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.ledger = bodies.ledger()
        self.name = uuid.uuid4().hex[:8]
        self.number = 0
        self.stopped = False
        self.submit: dict[str, Callable[[str], None]] = {
            "lane": self.enqueue_in_a_lane,
            "free": self.enqueue_free,
            "atomic": self.enqueue_atomic,
            "announce": outbox.announce,
            "price": self.tell_price,
            "message": receive.delay,
        }
        if models.VERSION >= 2:
            self.submit["new"] = self.enqueue_new

    def run(self) -> None:
        while not self.stopped:
            if self.number % LOOK_EVERY == 0:
                self.wait_for_the_others()
            self.commit_something()
            time.sleep(self.dice.expovariate(1 / PAUSE_SECONDS))

    def stop(self, *_: object) -> None:
        self.stopped = True

    def commit_something(self) -> None:
        """Make one transaction, and note what is known of its outcome."""
        self.number += 1
        fate = self.dice.random()
        items: list[str] = []
        undone: list[str] = []
        try:
            with transaction.atomic():
                if SAVEPOINT > fate >= ROLLED_BACK:
                    undone = self.write_and_undo()
                if KILLED > fate >= CUT_OFF:
                    transaction.on_commit(self.die)
                self.write(items)
                if fate < ROLLED_BACK:
                    raise RolledBack
                if CUT_OFF > fate >= SAVEPOINT:
                    self.cut_off()
        except RolledBack:
            self.note_all("aborted", items)
        except Error:  # of the database: only the business rows know how it went
            connection.close()
        else:
            self.note_all("committed", items)
        self.note_all("aborted", undone)

    def write(self, items: list[str]) -> None:
        """Write some items, each with its business row; ``items`` tells how far it came."""
        for kind in self.dice.choices(list(self.submit), k=self.dice.randint(1, 4)):
            item = f"{kind}-{self.name}-{self.number}-{len(items)}"
            items.append(item)
            self.ledger.note("intended", item)
            models.Fact.objects.create(item=item, kind=kind)
            self.submit[kind](item)

    def write_and_undo(self) -> list[str]:
        """Write items in a savepoint that is rolled back."""
        items: list[str] = []
        with contextlib.suppress(RolledBack), transaction.atomic():
            self.number += 1
            self.write(items)
            raise RolledBack
        return items

    def cut_off(self) -> None:
        """Let the server end this connection in the middle of the transaction."""
        self.ledger.note("fault", note="producer's own connection ended")
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            elif connection.vendor == "mysql":
                cursor.execute("KILL CONNECTION_ID()")
            else:
                raise Error("there is no server that could end it")

    def die(self) -> None:
        """End without a word: after the commit, before the hooks of the same transaction."""
        self.ledger.note("fault", note="producer killed between commit and hook")
        self.ledger.note("struck", process=str(os.getpid()), note="killed")
        os.kill(os.getpid(), signal.SIGKILL)

    def enqueue_in_a_lane(self, item: str) -> None:
        shop = f"shop{self.dice.randrange(models.LANES)}"
        fields = {"item": item, "shop": shop, **self.body()}
        match self.dice.randrange(3):
            case 0:
                models.LaneJob.objects.create(**fields)
            case 1:
                models.LaneJob.enqueue_many([models.LaneJob(**fields)])
            case _:
                models.LaneJob.enqueue(**fields)

    def enqueue_free(self, item: str) -> None:
        models.FreeJob.enqueue(item=item, **self.body())

    def enqueue_atomic(self, item: str) -> None:
        shop = f"shop{self.dice.randrange(models.KEYS)}"
        models.AtomicJob.enqueue(item=item, shop=shop, **self.body())

    def enqueue_new(self, item: str) -> None:
        shop = f"shop{self.dice.randrange(models.KEYS)}"
        models.NewJob.enqueue(item=item, shop=shop, **self.body())

    def tell_price(self, item: str) -> None:
        outbox.tell_price(item, f"key{self.dice.randrange(models.KEYS)}")

    def body(self) -> dict[str, float]:
        """Return how long a body takes (seconds) and how often it breaks: mostly 0 or little."""
        chance = self.dice.random()
        takes = self.dice.uniform(1, 4) if chance < 0.01 else 0.2 if chance < 0.2 else 0.0
        return {"takes": takes, "breaks": int(self.dice.random() < 0.05)}

    def wait_for_the_others(self) -> None:
        while not self.stopped and self._waiting() > MOST_WAITING:
            time.sleep(0.2)

    def _waiting(self) -> int:
        queues = (models.LaneJob, models.FreeJob, models.AtomicJob)
        try:
            return sum(queue.objects.filter(status="NEW").count() for queue in queues)
        except Error:
            connection.close()
            return 0

    def note_all(self, what: str, items: list[str]) -> None:
        for item in items:
            self.ledger.note(what, item)  # type: ignore[arg-type]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.soak.producer", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    producer = Producer(random.Random(parser.parse_args().seed))
    stalls.watch_for_stalls(bodies.ledger(), settings.LEASE_SECONDS / 2)
    signal.signal(signal.SIGTERM, producer.stop)
    producer.run()
