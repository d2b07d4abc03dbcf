"""A Celery app whose messages are sent only if the transaction commits."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from celery import Celery

from .messages import Capture, publish


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

    outbox_exclude: tuple[str, ...] = ("celery.*", "jaiminho_celery.*", "parviraptor_celery.*")
    """Patterns of task names that bypass the outbox."""

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        """Write the message into the outbox, and return the AsyncResult of its task."""
        direct = any(options.get(key) for key in ("producer", "publisher", "connection"))
        if direct or any(fnmatchcase(name, pattern) for pattern in self.outbox_exclude):
            return super().send_task(name, *args, **options)
        capture = Capture(self.connection_for_write())
        result = super().send_task(name, *args, **{**options, "producer": capture})
        publish(capture.messages)
        return result
