"""A RabbitMQ node private to one supervisor, where RabbitMQ is installed: no wheel brings it.

It listens on 127.0.0.1 only, on ports of its own, with a name, an epmd, a cookie and files of its
own: it can't meet another node on this machine. What is durable survives a restart of the node.
"""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.ports import lasting_port
from tests.supervision import embedded, processes

# Debian's command on the PATH changes the user, and then refuses to read our files.
PROGRAMS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
READY_LOG_LINE = "Server startup complete"
READY_SECONDS = 60.0
PORT_TRIES = 5
PORT_TAKEN = ("eaddrinuse", "in use")

CONFIGURATION = """
listeners.tcp.1 = 127.0.0.1:{port}
disk_free_limit.absolute = 1MB
log.console = true
log.console.level = info
"""


@dataclass(frozen=True)
class Node:
    """One node: its directory and its ports. Starting it again brings back what was durable."""

    directory: Path
    port: int
    distribution_port: int
    epmd_port: int

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self) -> list[str]:
        """Return the server's command; MissingServer if it is not installed."""
        found = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if found is None or shutil.which("epmd", path=_search_path()) is None:
            raise embedded.MissingServer(
                "RabbitMQ is not installed here (Debian: apt-get install rabbitmq-server)."
                " RABBITMQ_URL names one that runs."
            )
        return [found]

    def environment(self) -> dict[str, str]:
        """Return what the server reads instead of /etc/rabbitmq and /var/lib/rabbitmq."""
        here = self.directory
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("RABBITMQ")},
            "PATH": _search_path(),
            "HOME": str(here),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "RABBITMQ_NODENAME": f"private{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(here / "environment.conf"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "mnesia"),
            "RABBITMQ_LOG_BASE": str(here / "logs"),
            "RABBITMQ_LOGS": "-",
            # One scheduler, which doesn't spin: the node is one of many processes here.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +A 4 +sbwt none"
            " -kernel inet_dist_use_interface {127,0,0,1}",
            # The script replaces itself by the server instead of watching over it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def write_files(self) -> None:
        """Write what the server reads; without them it would read the system's own."""
        (self.directory / "rabbitmq.conf").write_text(CONFIGURATION.format(port=self.port))
        (self.directory / "environment.conf").write_text("")
        (self.directory / "plugins").write_text("[].")

    def start_epmd(self, supervisor: processes.Supervisor) -> None:
        """Start the port mapper, which the server would otherwise leave behind as a daemon."""
        supervisor.start(
            "epmd",
            ["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"],
            env=self.environment(),
            log=self.directory / "epmd.log",
            ready=lambda: processes.port_answers("127.0.0.1", self.epmd_port),
        )

    def start(self, supervisor: processes.Supervisor) -> processes.Managed:
        """Start the server and wait for it; ProcessFailed if it doesn't come up."""
        log = self.directory / "rabbitmq.log"
        offset = log.stat().st_size if log.exists() else 0
        return supervisor.start(
            "rabbitmq",
            self.command(),
            env=self.environment(),
            cwd=self.directory,
            ready=lambda: READY_LOG_LINE in processes.read_log(log, offset),
            ready_timeout=READY_SECONDS,
            stop_signal=signal.SIGKILL,  # in the end nobody wants to keep anything of it
            log=log,
        )


def start_rabbitmq(supervisor: processes.Supervisor, directory: Path) -> str:
    """Start a node in an empty `directory`; return "amqp://guest:guest@127.0.0.1:PORT//".

    MissingServer without RabbitMQ, ProcessFailed if it doesn't come up within a minute.
    """
    return start_node(supervisor, directory).url


def start_node(supervisor: processes.Supervisor, directory: Path) -> Node:
    """Start a node and return it, on ports that nobody else took meanwhile."""
    for tries_left in reversed(range(PORT_TRIES)):
        node = Node(directory, *(lasting_port() for _ in range(3)))
        node.command()
        node.write_files()
        try:
            node.start_epmd(supervisor)
            node.start(supervisor)
        except processes.ProcessFailed as error:
            if tries_left == 0 or not any(words in str(error) for words in PORT_TAKEN):
                raise
        else:
            return node
    raise AssertionError("the last try either returns or raises")


def _search_path() -> str:
    """Return ours, with where the distributions put a server's programs."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
