"""Run the demo: `python -m example_project.demo`, or `make demo`."""

import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import django

from . import places as places_module
from . import report
from .embedded import MissingServer
from .ledger import Ledger
from .options import Options, parse
from .places import Places, UnreachableBroker
from .poster import PostRefused
from .processes import ProcessFailed, Supervisor
from .stack import Stack
from .timetable import read_flights

INTERRUPTED = 130


def main() -> int:
    """Return the exit status: 0 if the ledger is in order, 1 if not, 130 if interrupted."""
    options = parse()
    signal.signal(signal.SIGTERM, _interrupt)
    directory = Path(tempfile.mkdtemp(prefix="departures-demo-"))
    status = 1
    try:
        status = 0 if _run(options, directory).ok else 1
    except KeyboardInterrupt:
        print("\nInterrupted; every process is stopped.", flush=True)
        status = INTERRUPTED
    except (MissingServer, PostRefused, ProcessFailed, TimeoutError, UnreachableBroker) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr, flush=True)
    finally:
        _tidy(directory, keep=status == 1)
    return status


def _run(options: Options, directory: Path) -> Ledger:
    with ExitStack() as last_things, Supervisor() as supervisor:
        places = places_module.arrange(supervisor, directory, os.environ)
        last_things.callback(places_module.sweep, places)
        _introduce(places)
        ledger = _play(options, supervisor, places)
        print(f"\n{report.render(ledger)}", flush=True)
    return ledger


def _play(options: Options, supervisor: Supervisor, places: Places) -> Ledger:
    os.environ.update(places.environment)
    stack = Stack(supervisor, places)
    stack.migrate()
    django.setup()
    # These have models in them, which can't be imported before Django is set up.
    from . import tables
    from .scenario import Scenario

    tables.empty()
    return Scenario(options, stack, places, read_flights(options.departures)).run()


def _introduce(places: Places) -> None:
    database = "given by DATABASE_URL" if places.database_url else "an SQLite file"
    broker = "an embedded Valkey" if places.broker_is_ours else "given by CELERY_BROKER_URL"
    print(f"Database: {database}. Broker: {broker}. Logs: {places.directory}")
    print(f"Watch it at http://127.0.0.1:{places.web_port}/")
    if places.database_url:
        print("In that database the departures app's tables and its messages are emptied now.")
    sys.stdout.flush()


def _tidy(directory: Path, *, keep: bool) -> None:
    if keep:
        print(f"The logs and the board's journal are kept in {directory}", flush=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
