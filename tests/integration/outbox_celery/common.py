"""What these tests share: an app on a broker."""

from __future__ import annotations

from tests.integration.wire import Broker

NOWHERE = "redis://127.0.0.1:1/0"


def nothing() -> None: ...


def tasks_of(at: Broker) -> set[str]:
    """Return the names of the tasks that lie at the broker, and take them."""
    found = set()
    for messages in at.take().values():
        for message in messages:
            found.add(message["headers"]["task"])
    return found
