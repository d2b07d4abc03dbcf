"""Kicks as Celery would send them, of which nearly everything is the same each time.

To send a task by its name Celery looks up its options, its route and its queue, binds that queue
and describes the arguments: most of what a kick costs. So what Celery made of the first kick of
a task is kept, and the next ones differ in their ids and arguments only. Both apps use this
module.

Where something else could differ, Celery makes each message by itself: inside of a task, which is
its parent; for a countdown; with a route that is a function, or an app with a way of sending of
its own; and where a receiver of Celery's signals is to see the message.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import Celery, signals
from celery.app.routes import MapRoute
from kombu import Connection
from kombu.utils.uuid import uuid

LONGEST_SHOWN = 1000
"""Characters of arguments that Celery describes in full."""

_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
_sends_as_celery: set[Callable[..., Any]] = {Celery.send_task}


def sends_as_celery(send_task: Callable[..., Any]) -> None:
    """Say of a method of an app that, given a producer, it does what Celery's own does."""
    _sends_as_celery.add(send_task)


def send(
    app: Celery,
    connection: Connection,
    task: str,
    kwargs: dict[str, Any],
    countdown: float | None = None,
) -> None:
    """Publish ``task`` with ``kwargs`` (names and ids only) once, on ``connection``."""
    producer, shown = app.amqp.Producer(connection, auto_declare=False), repr(kwargs)
    if countdown is not None or not _is_like_others(app, shown):
        _by_celery(app, producer, task, kwargs, countdown)
        return
    forms: dict[str, _Form] = vars(app.amqp).setdefault("_parviraptor_kicks", {})
    form, about = forms.get(task), _circumstances(app, task)
    if form is None or form.about != about:
        _by_celery(app, watched := _Watched(producer), task, kwargs, None)
        forms[task] = _Form(about, _form_of(app, watched.published, kwargs, shown))
    elif form.message is None:
        _by_celery(app, producer, task, kwargs, None)
    else:
        form.message.publish(app, producer, kwargs, shown)


def _is_like_others(app: Celery, shown: str) -> bool:
    """Return whether nothing but ids and arguments tells a kick from others of its task."""
    if app.current_worker_task is not None or any(signal.receivers for signal in _SIGNALS):
        return False
    return len(shown) <= LONGEST_SHOWN and "\\" not in shown and '"' not in shown


def _by_celery(
    app: Celery, producer: Any, task: str, kwargs: dict[str, Any], countdown: float | None
) -> None:
    app.send_task(
        task, kwargs=kwargs, countdown=countdown, producer=producer, retry=False, ignore_result=True
    )


def _circumstances(app: Celery, task: str) -> tuple[Any, ...]:
    """Return what a message depends on, besides its arguments.

    Celery itself looks its settings up once, for these objects.
    """
    amqp: Any = app.amqp
    how = getattr(app.send_task, "__func__", app.send_task)
    known = app._tasks.get(task)  # type: ignore[attr-defined]
    return os.getpid(), how, known, amqp.router, amqp.send_task_message, amqp.create_task_message


class _Watched:
    """A producer, and what was published by it."""

    def __init__(self, producer: Any) -> None:
        self.producer, self.connection = producer, producer.connection
        self.published: list[tuple[Any, dict[str, Any]]] = []

    def publish(self, body: Any, **options: Any) -> Any:
        self.published.append((body, options))
        return self.producer.publish(body, **options)


@dataclass
class _Message:
    """What all kicks of a task have in common."""

    args: Any
    embedded: Any
    headers: dict[str, Any]
    options: dict[str, Any]

    def publish(self, app: Celery, producer: Any, kwargs: dict[str, Any], shown: str) -> None:
        number, connection = uuid(), producer.connection
        own = {"id": number, "root_id": number, "kwargsrepr": shown}
        options = {
            **self.options,
            "headers": {**self.headers, **own},
            "correlation_id": number,
            "reply_to": app.thread_oid,
        }
        if all(_is_declared(entity, connection) for entity in options["declare"]):
            options["declare"] = []  # to find that out kombu would bind copies of them first
        with connection._reraise_as_library_errors():
            producer.publish((self.args, kwargs, self.embedded), **options)


def _is_declared(entity: Any, connection: Any) -> bool:
    is_declared: bool = hash(entity) in connection.declared_entities
    return is_declared and entity.can_cache_declaration


@dataclass
class _Form:
    """What kicks of a task look like in these circumstances; None: Celery makes each anew."""

    about: tuple[Any, ...]
    message: _Message | None


def _form_of(
    app: Celery, published: list[tuple[Any, dict[str, Any]]], kwargs: dict[str, Any], shown: str
) -> _Message | None:
    """Return what to keep of the one message that was ``published``, if it is of the usual kind."""
    how = getattr(app.send_task, "__func__", app.send_task)
    routes: Any = app.amqp.router.routes  # type: ignore[attr-defined]
    if how not in _sends_as_celery or len(published) != 1:  # two: an event tells of the first
        return None
    if not all(type(route) is MapRoute for route in routes):
        return None
    [(body, options)] = published
    headers, number = options.get("headers") or {}, options.get("correlation_id")
    is_usual = (
        isinstance(body, tuple)
        and len(body) == 3
        and body[1] == kwargs
        and headers.get("id") == headers.get("root_id") == number
        and headers.get("kwargsrepr") == shown
        and headers.get("expires") is headers.get("eta") is headers.get("parent_id") is None
        and options.get("reply_to") == app.thread_oid
    )
    if not is_usual:
        return None
    return _Message(body[0], body[2], headers, {**options, "declare": options["declare"] or []})
