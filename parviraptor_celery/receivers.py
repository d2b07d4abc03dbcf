"""Logs what the signals tell: names and ids, never payloads."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import receiver

from . import signals

logger = logging.getLogger("parviraptor_celery")


@receiver(signals.job_finished, dispatch_uid="parviraptor_celery.log_finished")
def log_finished(sender: Any, job: Any, outcome: Any, **_: Any) -> None:
    logger.log(outcome.log_level, "%s %s: %s", sender._meta.label, job.pk, type(outcome).__name__)


@receiver(signals.job_handed_back, dispatch_uid="parviraptor_celery.log_handed_back")
def log_handed_back(sender: Any, job: Any, **_: Any) -> None:
    logger.info("%s %s: handed back", sender._meta.label, job.pk)


@receiver(signals.job_rescued, dispatch_uid="parviraptor_celery.log_rescued")
def log_rescued(sender: Any, job_id: int, status: str, **_: Any) -> None:
    logger.warning("%s %s: its lease ran out, now %s", sender._meta.label, job_id, status)


@receiver(signals.lease_lost, dispatch_uid="parviraptor_celery.log_lease_lost")
def log_lease_lost(sender: Any, job: Any, **_: Any) -> None:
    logger.error(
        "%s %s: attempt %s outlived its lease and could record nothing",
        sender._meta.label,
        job.pk,
        job.attempt,
    )


@receiver(signals.dependents_failed, dispatch_uid="parviraptor_celery.log_dependents_failed")
def log_dependents_failed(sender: Any, cause_id: int, rows: int, **_: Any) -> None:
    logger.warning("%s %s: %s waiting jobs failed with it", sender._meta.label, cause_id, rows)


@receiver(signals.jobs_squashed, dispatch_uid="parviraptor_celery.log_squashed")
def log_squashed(sender: Any, newest_id: int, rows: int, **_: Any) -> None:
    logger.info("%s %s: supersedes %s waiting jobs", sender._meta.label, newest_id, rows)


@receiver(signals.queue_paused, dispatch_uid="parviraptor_celery.log_paused")
def log_paused(sender: Any, using: str, lane: str, **_: Any) -> None:
    logger.warning("%s in %s: %s is paused", sender._meta.label, using, _what(lane))


@receiver(signals.queue_resumed, dispatch_uid="parviraptor_celery.log_resumed")
def log_resumed(sender: Any, using: str, lane: str, **_: Any) -> None:
    logger.warning("%s in %s: %s goes on", sender._meta.label, using, _what(lane))


@receiver(signals.kick_failed, dispatch_uid="parviraptor_celery.log_kick_failed")
def log_kick_failed(sender: str, error: Exception, **_: Any) -> None:
    logger.warning(
        "%s could not be published (%s): the rows are safe, the next sweep finds them",
        sender,
        type(error).__name__,
    )


def _what(lane: str) -> str:
    return f"lane {lane}" if lane else "the whole queue"
