"""Where this run happens: its directory, its servers, and the environment of its processes."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kombu import Connection

from . import embedded
from .processes import Supervisor, free_port

LEASE_SECONDS = 10
TICK_SECONDS = 3
CONNECT_SECONDS = 5


class UnreachableBroker(RuntimeError):
    """The broker that CELERY_BROKER_URL names does not answer."""


@dataclass(frozen=True, slots=True)
class Places:
    """Directory, ports and URLs of one run; `queue` is its own, also on a shared broker."""

    directory: Path
    broker_url: str
    broker_is_ours: bool
    database_url: str | None  # None: an SQLite file in the directory
    queue: str
    web_port: int
    board_port: int
    pricing_port: int

    @property
    def journal(self) -> Path:
        return self.directory / "board.jsonl"

    @property
    def key_prefix(self) -> str:
        return f"{self.queue}:"

    @property
    def environment(self) -> dict[str, str]:
        """What this run's processes need to know, on top of our own environment."""
        return {
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "DATABASE_URL": self.database_url or "",
            "CELERY_BROKER_URL": self.broker_url,
            "EXAMPLE_DIR": str(self.directory),
            "EXAMPLE_QUEUE": self.queue,
            "EXAMPLE_KEY_PREFIX": self.key_prefix,
            "EXAMPLE_LEASE_SECONDS": str(LEASE_SECONDS),
            "EXAMPLE_TICK_SECONDS": str(TICK_SECONDS),
            "EXAMPLE_TASK_EVENTS": "0",  # there is no Flower here to listen
            "BOARD_URL": f"http://127.0.0.1:{self.board_port}",
            "PRICING_URL": f"http://127.0.0.1:{self.pricing_port}",
            "PYTHONUNBUFFERED": "1",
            "DEBUG": "0",
        }


def arrange(supervisor: Supervisor, directory: Path, environ: Mapping[str, str]) -> Places:
    """Take the servers that `environ` names, start an embedded broker if it names none."""
    given = environ.get("CELERY_BROKER_URL")
    if given:
        check_broker(given)
    return Places(
        directory=directory,
        broker_url=given or embedded.start_valkey(supervisor, directory),
        broker_is_ours=not given,
        database_url=environ.get("DATABASE_URL") or None,
        queue=f"departures-demo-{secrets.token_hex(4)}",
        web_port=free_port(),
        board_port=free_port(),
        pricing_port=free_port(),
    )


def check_broker(url: str) -> None:
    """Raise UnreachableBroker rather than have every process try for ever."""
    try:
        with Connection(url, connect_timeout=CONNECT_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
    except Exception as error:  # each transport has errors of its own
        told = str(error).rstrip(".")
        raise UnreachableBroker(
            f"CELERY_BROKER_URL names a broker that can't be used: {told}. Start it, or unset"
            " the variable to run an embedded one."
        ) from error


def sweep(places: Places) -> None:
    """Leave nothing of this run on a broker that is not ours, once its processes are stopped."""
    if places.broker_is_ours:
        return
    with Connection(places.broker_url, connect_timeout=CONNECT_SECONDS) as connection:
        channel: Any = connection.default_channel
        if hasattr(channel, "client"):  # Redis, whatever the URL calls it
            for key in list(channel.client.scan_iter(f"{places.key_prefix}*", count=1000)):
                channel.client.delete(key)
        else:
            channel.queue_delete(places.queue)
            channel.exchange_delete(places.queue)
