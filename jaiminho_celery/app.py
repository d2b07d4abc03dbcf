"""A Celery app whose messages are sent only if the transaction commits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from celery import Celery

from .messages import Capture, enqueue, remember


class OutboxCelery(Celery):
    """Sends every message through the outbox, in the caller's transaction.

    >>> app = OutboxCelery("shop")
    >>> with transaction.atomic():
    ...     order.save()
    ...     pack.delay(order.pk)   # sent after the commit; never, if it is rolled back

    ``delay()``, ``apply_async()``, ``send_task()`` and canvas work as usual, and ``delay()``
    returns an AsyncResult with the id that will run. Calls that bring a producer or connection
    of their own (beat's, for example) and tasks that match ``outbox_exclude`` go out directly.
    """

    outbox_exclude: tuple[str, ...] = (
        "celery.backend_cleanup",
        "jaiminho_celery.*",
        "parviraptor_celery.*",
    )
    """Patterns of task names that bypass the outbox."""

    _now = threading.local()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        remember(self)

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        """Write the message into the outbox, and return the AsyncResult of its task."""
        producer = options.pop("publisher", None) or options.get("producer")
        is_ours = producer is None or isinstance(producer, Capture)
        if not is_ours or options.get("connection") or self._is_excluded(name):
            options["producer"] = None if is_ours else producer
            with self._sending_directly():
                return super().send_task(name, *args, **options)
        capture = Capture(self.connection_for_write())
        result = super().send_task(name, *args, **{**options, "producer": capture})
        enqueue(self, capture.messages)
        return result

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """Return a context with a producer: for canvas, one that leads into the outbox too.

        A group hands its producer to each of its tasks, which must not take that for a wish to
        bypass the outbox.
        """
        if producer is None and not getattr(self._now, "directly", False):
            return self._capturing()
        return super().producer_or_acquire(producer)

    @contextmanager
    def _capturing(self) -> Iterator[Capture]:
        capture = Capture(self.connection_for_write())
        yield capture
        if capture.messages:  # published by it itself, rather than handed on to send_task()
            enqueue(self, capture.messages)

    @contextmanager
    def _sending_directly(self) -> Iterator[None]:
        before = getattr(self._now, "directly", False)
        self._now.directly = True
        try:
            yield
        finally:
            self._now.directly = before

    def _is_excluded(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.outbox_exclude)
