"""The events of a job's progress, on real brokers."""

from __future__ import annotations

import contextlib
from typing import Any

from celery import Celery

from parviraptor_celery import task_events
from parviraptor_celery.task_events import Watched

MOST_TRIES = 50


def test_an_event_reaches_who_listens_to_the_workers(broker_url: str, queue_name: str) -> None:
    app = Celery("events", broker=broker_url, set_as_current=False)
    seen: dict[str, Any] = {}

    def note(event: dict[str, Any]) -> None:
        seen[event["uuid"]] = event

    with app, app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={task_events.TYPE: note})
        with receiver.consumer_context() as (listening, _, _):
            for _ in range(MOST_TRIES):  # Redis subscribes while it waits, and not before
                assert task_events.send(Watched(None, app, queue_name, "w@host"), "1 of 2")
                with contextlib.suppress(TimeoutError):
                    listening.drain_events(timeout=0.2)
                if queue_name in seen:
                    break
    event = seen[queue_name]
    assert (event["result"], event["hostname"]) == ("1 of 2", "w@host")
