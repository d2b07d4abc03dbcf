"""Logs what the signals tell: names and ids, never payloads."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import receiver

from parviraptor_celery.texts import printable

from . import signals

logger = logging.getLogger("jaiminho_celery")


@receiver(signals.event_settled, dispatch_uid="jaiminho_celery.log_settled")
def log_settled(sender: Any, event: Any, outcome: Any, **_: Any) -> None:
    if not logger.isEnabledFor(outcome.log_level):
        return
    logger.log(
        outcome.log_level,
        "event %s (%s, stream %r): %s",
        event.pk,
        printable(event.name),  # of a row that was tampered with it may be anything
        event.stream,
        outcome.summary,
    )
