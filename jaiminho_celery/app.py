"""A Celery app whose messages are sent only if the transaction commits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from celery import Celery
from celery._state import task_join_will_block  # type: ignore[attr-defined]
from celery.backends.rpc import RPCBackend
from django.db import connections

from .capture import Capture
from .exceptions import UnknownAlias
from .messages import enqueue, remember


class OutboxCelery(Celery):
    """Sends every message through the outbox, in the caller's transaction.

    >>> app = OutboxCelery("shop")
    >>> with transaction.atomic():
    ...     order.save()
    ...     pack.delay(order.pk)   # sent after the commit; never, if it is rolled back

    ``delay()``, ``apply_async()``, ``send_task()`` and canvas work as usual, and ``delay()``
    returns an AsyncResult with the id that will run. Neither the broker nor the result backend
    is contacted by the call; a chord is the exception, as the result backend has to know its
    size before its tasks run. Calls that bring a producer or connection of their own (beat's,
    for example) and tasks that match ``outbox_exclude`` go out directly.

    ``apply_async(…, outbox_using="alias")`` writes to another database than usual.

    Raises (at the call): UnknownAlias, PayloadTooLarge, NotSerializable (headers or properties),
    kombu's EncodeError (arguments); all before anything is written.
    """

    outbox_exclude: tuple[str, ...] = (
        "celery.backend_cleanup",
        "jaiminho_celery.*",
        "parviraptor_celery.*",
    )
    """Patterns of task names that bypass the outbox."""

    outbox_using: str | None = None
    """The database to write to; by default where the router writes ``Event``."""

    def __init__(self, main: str | None = None, *args: Any, **kwargs: Any) -> None:
        self._this_thread = threading.local()
        super().__init__(main, *args, **kwargs)
        remember(self)

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        task_id: str | None = None,
        producer: Any = None,
        connection: Any = None,
        *rest: Any,
        **options: Any,
    ) -> Any:
        """Write the message into the outbox, and return the AsyncResult of its task."""
        call = (name, args, kwargs, countdown, eta, task_id)
        producer = producer or options.pop("publisher", None)
        using = self._checked(options.pop("outbox_using", None) or self.outbox_using)
        theirs = None if isinstance(producer, Capture) else producer
        if theirs or connection:
            return super().send_task(*call, theirs, connection, *rest, **options)
        if self._is_excluded(name):
            with super().producer_or_acquire() as direct:
                return super().send_task(*call, direct, None, *rest, **options)
        capture = Capture(self, using, of_one_call=True)
        return super().send_task(*call, capture, None, *rest, **options)

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return a context with a producer: for canvas, one that leads into the outbox too.

        A group hands its producer to each of its tasks, which must not take that for a wish to
        bypass the outbox.
        """
        if producer is None:
            return self._writing(Capture(self, self._checked(self.outbox_using)))
        if isinstance(producer, Capture) and producer.of_one_call:
            return self._writing(producer)
        return super().producer_or_acquire(producer)

    @property
    def backend(self) -> Any:
        """The result backend; Celery's own announcement of a call is kept away from it."""
        real = super().backend
        capture = self._this_thread.__dict__.pop("announcing", None)
        return real if capture is None else _Announcement(real, capture)

    @contextmanager
    def _writing(self, capture: Capture) -> Iterator[Capture]:
        """Write what ``capture`` was given; inside, ``send_task`` announces the call first."""
        if capture.of_one_call:
            self._this_thread.announcing = capture
        try:
            yield capture
        finally:
            self._this_thread.__dict__.pop("announcing", None)
        if capture.messages:
            self._write(capture)

    def _write(self, capture: Capture) -> None:
        enqueue(capture.messages, capture.using)

    def _checked(self, using: str | None) -> str | None:
        if using is not None and using not in connections:
            known = ", ".join(connections)
            raise UnknownAlias(f"There is no database {using!r}. Known: {known}.")
        return using

    def _is_excluded(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.outbox_exclude)


class _Announcement:
    """Stands in for the result backend where Celery tells it that a task is about to be sent.

    Redis would subscribe to the result, which ``get()`` does anyway. The reply queue of
    ``rpc://`` has to be there before the task runs, so it is declared with the message, by
    whoever publishes that.
    """

    def __init__(self, backend: Any, capture: Capture) -> None:
        self._backend = backend
        self._capture = capture

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        # In the pool of a worker the queue is there already (as RPCBackend.on_task_call says).
        if isinstance(self._backend, RPCBackend) and not task_join_will_block():
            self._capture.also_declared.append(self._backend.binding)
