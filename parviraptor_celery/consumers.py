"""Which workers would take a kick: asked of the workers themselves, through the broker."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Connection

from . import broker, kicks

ANSWER_SECONDS = 1.0


class NobodyToAsk(Exception):
    """The broker is away, so no worker can be asked."""


def of_kicks(arguments: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the Celery queue that kicks with these arguments go to, and who consumes it.

    Workers that don't answer within a second are not among them. Under ``task_always_eager``
    this process itself is.

    Raises:
        NobodyToAsk: the broker is away.
    """
    app = broker.this_app()
    name = _queue_of(app, arguments)
    if app.conf.task_always_eager:
        return name, ["this process"]
    try:
        answers = broker.use(app, lambda connection: _active_queues(app, connection))
    except broker.FAILURES as error:
        raise NobodyToAsk(type(error).__name__) from error
    return name, sorted(
        worker for worker, queues in answers.items() if name in {q["name"] for q in queues}
    )


def _queue_of(app: Celery, arguments: dict[str, Any]) -> str:
    # A router of the user's may look at the arguments, which name the queue of jobs.
    route = app.amqp.router.route({}, kicks.PROCESS, args=(), kwargs=arguments)
    queue = route.get("queue")
    return str(getattr(queue, "name", queue) or app.conf.task_default_queue)


def _active_queues(app: Celery, connection: Connection) -> dict[str, Any]:
    ask = app.control.inspect(timeout=ANSWER_SECONDS, connection=connection)
    answers: Any = ask.active_queues() or {}
    return dict(answers)
