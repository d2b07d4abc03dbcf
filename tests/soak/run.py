"""One soak, from an empty database to the verdict."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

from tests import servers
from tests.faults.ledger import Ledger
from tests.integration.black_hole import BlackHole, in_front_of
from tests.soak import brokers, databases
from tests.soak.fleet import Fleet
from tests.soak.options import Options
from tests.soak.watch import Watch
from tests.supervision import processes

if TYPE_CHECKING:
    from tests.soak.phases import Result


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
            # The fleet has a supervisor of its own: it ends before its servers do.
            with in_front_of(broker.url) as hole, processes.Supervisor() as fleet:
                environment = _environment(options, directory, database, hole.url)
                return _run(options, directory, fleet, environment, broker, hole)


def _environment(
    options: Options, directory: Path, database: dict[str, Any], broker_url: str
) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tests.soak.project.settings",
        "SOAK_DATABASE": json.dumps(database),
        "SOAK_BROKER_URL": broker_url,
        "SOAK_LEDGER": str(directory / "ledger"),
        "SOAK_LEASE": str(options.lease),
    }


def _run(
    options: Options,
    directory: Path,
    supervisor: processes.Supervisor,
    environment: dict[str, str],
    broker: brokers.Broker,
    hole: BlackHole,
) -> Result:
    """Set Django up for this run; only from here on its models can be imported."""
    os.environ.update(environment)
    django.setup()
    from tests.soak import phases
    from tests.soak.injector import Injector

    ledger, dice = Ledger(directory / "ledger"), random.Random(options.seed)
    watch = Watch(ledger.path)
    fleet = Fleet(supervisor, directory, environment, ledger, dice)
    injector = Injector(options, fleet, broker, hole, ledger, watch, dice)
    return phases.run(options, fleet, injector, ledger, watch)
