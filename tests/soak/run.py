"""One soak, from an empty database to the verdict."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests import servers
from tests.faults.ledger import Ledger
from tests.integration.black_hole import BlackHole, in_front_of
from tests.soak import brokers, databases
from tests.soak.fleet import Fleet
from tests.soak.options import Options
from tests.supervision import processes

if TYPE_CHECKING:
    pass

POLL_SECONDS = 0.02
SILENCE_SECONDS = 15
"""After which nobody hands out a lost message any more: longer than the visibility timeout."""


@dataclass(frozen=True)
class Result:
    """What a run found out."""

    problems: list[str]
    by_kind: dict[str, dict[str, int]]
    faults: dict[str, int]
    numbers: dict[str, float]


def soak(options: Options, directory: Path) -> Result:
    """Run everything, break things for as long as asked, and judge; files go to ``directory``."""
    with processes.Supervisor() as supervisor:
        server = servers.known().get(options.database) or servers.find(
            options.database, supervisor, directory
        )
        if not server.url:
            raise SystemExit(server.reason)
        with databases.own_database(options.database, server.url) as database:
            broker = brokers.start(options.broker, supervisor, directory / "broker")
            with in_front_of(broker.url) as hole:
                environment = {
                    "SOAK_DATABASE": json.dumps(database),
                    "SOAK_BROKER_URL": hole.url,
                    "SOAK_LEDGER": str(directory / "ledger"),
                    "SOAK_LEASE": str(options.lease),
                    "DJANGO_SETTINGS_MODULE": "tests.soak.project.settings",
                }
                os.environ.update(environment)
                return _Run(options, directory, supervisor, environment, broker, hole).run()


class _Run:
    """The phases of a run, on servers that are up."""

    def __init__(
        self,
        options: Options,
        directory: Path,
        supervisor: processes.Supervisor,
        environment: dict[str, str],
        broker: brokers.Broker,
        hole: BlackHole,
    ) -> None:
        self.options = options
        self.ledger = Ledger(directory / "ledger")
        self.dice = random.Random(options.seed)
        self.fleet = Fleet(supervisor, directory, environment, self.ledger, self.dice)
        self.broker, self.hole = broker, hole

    def run(self) -> Result:
        import django

        django.setup()
        from django.db import connection

        from tests.soak import evidence
        from tests.soak.injector import Injector
        from tests.soak.sampler import Sampler
        from tests.soak.verdict import Verdict

        _create_tables()
        sampler = Sampler()
        options = self.options
        self.fleet.start_all()
        sampler.start()
        try:
            self._await_the_first_bodies()
            injector = Injector(
                self.fleet,
                self.broker,
                self.hole,
                self.ledger,
                self.dice,
                options.lease,
                options.pace,
            )
            began = time.monotonic()
            while time.monotonic() < began + options.seconds:
                self.fleet.mend()
                injector.advance()
                time.sleep(POLL_SECONDS)
            injector.stop()
            stopped = time.monotonic()
            came_to_rest = self._drain()
            drained = time.monotonic() - stopped
        finally:
            sampler.stop()
        verdict = Verdict(
            self.ledger.entries(), evidence.gather(), options.lease, self.broker.is_durable
        )
        problems = [*verdict.problems(), *sampler.crowded, *self.fleet.surprises]
        if not came_to_rest:
            problems.append(f"no rest within {options.drain:g} s")
        numbers = {
            "seconds of faults": options.seconds,
            "seconds to come to rest": round(drained, 1),
            "samples of lanes": sampler.samples,
            **verdict.numbers(),
        }
        result = Result(problems, verdict.by_kind(), verdict.faults(), numbers)
        connection.close()
        return result

    def _await_the_first_bodies(self) -> None:
        def everything_runs() -> bool:
            self.fleet.mend()
            kinds = {e.item.partition("-")[0] for e in self.ledger.entries() if e.what == "ended"}
            return len(kinds) >= 7

        processes.wait_until(everything_runs, 60, "every kind of body to have ended once")

    def _drain(self) -> bool:
        """Let the producers end, then wait until all rows rest and no message is on its way."""
        from tests.soak import evidence

        for producer in self.fleet.those("producer"):
            self.fleet.dismiss(producer)

        def rests() -> bool:
            self.fleet.mend()
            producing = [m for m in self.fleet.leaving if m.role == "producer"]
            return not producing and evidence.open_work() == 0 and self._no_message_is_due()

        try:
            processes.wait_until(rests, self.options.drain, "everything to rest")
        except TimeoutError:
            return False
        return True

    def _no_message_is_due(self) -> bool:
        from tests.soak.project.models import Fact

        entries = self.ledger.entries()
        ended = {entry.item for entry in entries if entry.what == "ended"}
        sent = Fact.objects.filter(kind="message").values_list("item", flat=True)
        last = max(entry.at for entry in entries)
        return set(sent) <= ended or time.monotonic() - last > SILENCE_SECONDS


def _create_tables() -> None:
    from django.core.management import call_command

    from tests.soak.producer import KEYS
    from tests.soak.project.models import Counter

    call_command("migrate", run_syncdb=True, verbosity=0)
    Counter.objects.bulk_create([Counter(name=f"shop{number}") for number in range(KEYS)])
