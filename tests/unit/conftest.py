"""Fixtures of the unit tests: a broker in memory, an eager Celery, a quiet outbox."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from celery import Celery
from celery._state import _tls

from parviraptor_celery import broker
from tests.testapp import outbox as outbox_functions

# One for all tests: who published once keeps a connection to the application's broker.
CELERY = Celery("unit", broker="memory://", set_as_current=False)


@pytest.fixture(autouse=True)
def celery_in_memory() -> Iterator[Celery]:
    """Celery without a server: what is published stays in this process."""
    with using_celery(CELERY):
        yield CELERY


@pytest.fixture
def kicked(celery_in_memory: Celery) -> Callable[[], list[tuple[str, dict[str, Any]]]]:
    """Return the messages published since the last call, as names of tasks and arguments."""
    messages(celery_in_memory)
    return lambda: [
        (message.headers["task"], message.payload[1]) for message in messages(celery_in_memory)
    ]


@pytest.fixture
def eager(celery_in_memory: Celery) -> Iterator[Celery]:
    """Celery with `task_always_eager`."""
    celery_in_memory.conf.task_always_eager = True
    yield celery_in_memory
    celery_in_memory.conf.task_always_eager = False


@pytest.fixture
def outbox() -> Iterator[Any]:
    """The decorated functions of the tests, with `calls` and `errors` empty."""
    outbox_functions.forget()
    yield outbox_functions
    outbox_functions.forget()


@contextlib.contextmanager
def using_celery(app: Celery) -> Iterator[None]:
    """Make `app` the current one of this thread."""
    before = _tls.current_app
    app.set_current()
    broker.close_breaker()
    try:
        yield
    finally:
        _tls.current_app = before
        broker.close_breaker()


def messages(app: Celery) -> list[Any]:
    """Take all waiting messages from the application's queue."""
    with app.connection_for_read() as connection, connection.channel() as channel:
        app.amqp.queues[app.conf.task_default_queue](channel).declare()
        taken = []
        while message := channel.basic_get(app.conf.task_default_queue, no_ack=True):
            taken.append(channel.message_to_python(message))
        return taken


# The machine may be busy: how long an example takes says nothing here.
hypothesis.settings.register_profile("unit", deadline=None)
hypothesis.settings.load_profile("unit")
