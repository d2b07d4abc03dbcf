"""Everything a user would run, together: `python -m example_project.up`, or `make up`.

Runs the Procfile, and a broker of its own if CELERY_BROKER_URL names none. Ctrl-C stops it all.
Ports come from WEB_PORT, FLOWER_PORT, BOARD_PORT and PRICING_PORT.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

from honcho.environ import parse_procfile
from honcho.manager import Manager

from example_project.demo.embedded import MissingServer, start_valkey
from example_project.demo.places import UnreachableBroker, check_broker
from example_project.demo.processes import ProcessFailed, Supervisor, port_answers

PROJECT_DIR = Path(__file__).resolve().parent
ROOT = PROJECT_DIR.parent
PORTS = {
    "WEB_PORT": "8000",
    "FLOWER_PORT": "5555",
    "BOARD_PORT": "8001",
    "PRICING_PORT": "8002",
}


def main() -> int:
    """Run until Ctrl-C (returns 130) or until one of the processes ends."""
    environment = _environment()
    if wrong := [
        f"{name}={environment[name]}" for name in PORTS if not _is_port(environment[name])
    ]:
        print(f"Not a port: {', '.join(wrong)}.", file=sys.stderr)
        return 1
    if taken := _taken_ports(environment):
        print(f"In use already: {', '.join(taken)}. Set other ports, or stop what listens there.")
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="example-") as directory, Supervisor() as servers:
            if named := environment.get("CELERY_BROKER_URL"):
                check_broker(named)
            else:
                environment["CELERY_BROKER_URL"] = start_valkey(servers, Path(directory))
            _migrate(environment)
            print(_addresses(environment), flush=True)
            return _run_procfile(environment)
    except KeyboardInterrupt:
        return 130
    except (MissingServer, ProcessFailed, UnreachableBroker) as error:
        print(error, file=sys.stderr)
        return 1


def _environment() -> dict[str, str]:
    """Our environment, with the ports, the services' URLs and this Python first in the path."""
    environment = {**PORTS, **os.environ}
    environment.setdefault("EXAMPLE_DIR", str(PROJECT_DIR / "var"))
    environment.setdefault("BOARD_URL", f"http://127.0.0.1:{environment['BOARD_PORT']}")
    environment.setdefault("PRICING_URL", f"http://127.0.0.1:{environment['PRICING_PORT']}")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    environment["PYTHONUNBUFFERED"] = "1"
    environment["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    Path(environment["EXAMPLE_DIR"]).mkdir(parents=True, exist_ok=True)
    return environment


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < 65536


def _taken_ports(environment: dict[str, str]) -> list[str]:
    ports = {name: int(environment[name]) for name in PORTS}
    return [f"{name}={port}" for name, port in ports.items() if port_answers("127.0.0.1", port)]


def _migrate(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "example_project.manage", "migrate", "--verbosity", "0"]
    done = subprocess.run(  # noqa: S603 - our own
        command, env=environment, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise ProcessFailed(
            f"The database could not be migrated: {_error_in(done.stderr)}\n"
            f"Is it there, and DATABASE_URL right? All of it: {_manage()} migrate"
        )
    sys.stderr.write(done.stderr)


def _error_in(output: str) -> str:
    """The message in which a traceback ends: its last unindented line, and the rest."""
    lines = output.strip().splitlines() or ["it said nothing."]
    first = max((n for n, line in enumerate(lines) if not line[:1].isspace()), default=0)
    return "\n".join(lines[first:])


def _addresses(environment: dict[str, str]) -> str:
    web = f"http://127.0.0.1:{environment['WEB_PORT']}"
    return f"""
  the example         {web}/
  admin               {web}/admin/
  are the queues well {web}/queue-monitoring/
  open queue entries  {web}/open-queue-entries/
  Flower              http://127.0.0.1:{environment["FLOWER_PORT"]}/
  broker              {_without_password(environment["CELERY_BROKER_URL"])}

Post a departure:

  curl {web}/departures/ -d '{{
    "departed_at": "2013-01-01T05:17", "carrier": "UA", "flight": 1545, "tailnum": "N14228",
    "origin": "EWR", "dest": "IAH", "dep_delay_min": 2, "air_time_min": 227, "distance_mi": 1400}}'

For the admin, make yourself a user, in another terminal:

  {_manage()} createsuperuser

The log of the processes follows. Ctrl-C stops everything.
"""


def _manage() -> str:
    """The command line of manage.py on the same database, to be copied into a shell."""
    paths = [Path(sys.executable), PROJECT_DIR / "manage.py"]
    command = " ".join(shlex.quote(os.path.relpath(path)) for path in paths)
    if "DATABASE_URL" in os.environ:
        return f"DATABASE_URL=... {command}"  # it may hold a password
    directory = os.environ.get("EXAMPLE_DIR")
    return f"EXAMPLE_DIR={shlex.quote(directory)} {command}" if directory else command


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _run_procfile(environment: dict[str, str]) -> int:
    signal.signal(signal.SIGHUP, _end_without_terminal)
    manager = Manager()
    procfile = parse_procfile((PROJECT_DIR / "Procfile").read_text())
    for name, command in procfile.processes.items():
        manager.add_process(name, command, env=environment, cwd=str(ROOT))
    manager.loop()
    return int(manager.returncode or 0)


def _end_without_terminal(number: int, frame: FrameType | None) -> None:
    """End as on SIGTERM when the terminal is closed, or what was started would go on for ever.

    The children have sessions of their own, and printing on a terminal that is gone fails.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
