"""Publishes one leased event and settles it; the hook and the relay both come through here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from parviraptor_celery.clock import from_now
from parviraptor_celery.database import restore_autocommit
from parviraptor_celery.leases import heartbeat
from parviraptor_celery.signals import tell
from parviraptor_celery.texts import describe

from . import registry, signals
from .conf import settings
from .exceptions import BadEventSignature, LeaseRanOut, UnknownFunction, UnreadableEvent
from .fingerprints import fingerprint
from .models import Event, backoff, given_up, is_last_attempt
from .serialization import decode_call
from .signing import verify
from .states import EventStatus


@dataclass(frozen=True)
class Outcome:
    """How an attempt to publish ended."""

    log_level: ClassVar[int] = logging.INFO

    @property
    def summary(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Published(Outcome):
    log_level = logging.DEBUG


@dataclass(frozen=True)
class Unknown(Outcome):
    """Nobody knows the name yet: perhaps a newer release wrote the row."""

    log_level = logging.WARNING

    @property
    def summary(self) -> str:
        return (
            "no function of this process has that name; the event waits for a worker that knows it"
        )


@dataclass(frozen=True)
class Failed(Outcome):
    """The function raised; tried again after a back-off."""

    log_level = logging.WARNING
    error: Exception

    @property
    def summary(self) -> str:
        return f"failed with {type(self.error).__name__}, to be tried again"


@dataclass(frozen=True)
class Dead(Outcome):
    """The event can't be published as it is."""

    log_level = logging.ERROR
    reason: str
    error: Exception

    @property
    def summary(self) -> str:
        return f"became a dead letter ({type(self.error).__name__})"


@dataclass
class Run:
    """An attempt to publish: the event, how it ended, and who made it."""

    row: Event
    outcome: Outcome
    by_relay: bool
    sender: Any = None
    payload: Any = None
    is_settled: bool = False
    is_recorded: bool = False
    pause: timedelta | None = None
    seen: int | None = None
    """The error count before this attempt."""

    pauses_pool = False

    @property
    def leaves_lane(self) -> bool:
        return isinstance(self.outcome, Published)

    def settle(self) -> bool:
        """Write the outcome, fenced; False when the event was no longer ours.

        Called inside a transaction, which may start again: ``announce`` follows afterwards.
        """
        if self.seen is None:
            self.seen = self.row.error_count
        # As it was, should the transaction start again.
        self.row.status, self.row.error_count = EventStatus.PUBLISHING, self.seen
        self.outcome = _unless_last(self.outcome, self.seen)
        self.is_recorded = _transition(self)
        self.is_settled = True
        return self.is_recorded

    def refuse(self, error: Exception) -> None:
        """Count an outcome that the database refuses to store as a failure."""
        self.outcome = Failed(error)

    def announce(self) -> None:
        """Send the signals of a settled attempt, outside of any transaction of the engine."""
        event, error = self.row, getattr(self.outcome, "error", None)
        if not self.is_recorded:
            logging.getLogger("jaiminho_celery").error(
                "event %s: attempt %s outlived its lease and could record nothing",
                event.pk,
                event.attempt,
            )
            return
        tell(signals.event_settled, sender=Event, event=event, outcome=self.outcome)
        if signal := _signal_for(self):
            tell(signal, sender=self.sender, event_payload=self.payload, event_id=event.pk)
        if error is not None:
            _report(error)


def run(event: Event, *, by_relay: bool) -> Run:
    """Publish a leased event, renewing its lease; what the function raises becomes an outcome."""
    attempt = Run(event, Published(), by_relay, payload={})
    with heartbeat.keep(event.keep_lease, settings.LEASE_SECONDS):
        attempt.outcome = _publish(attempt)
        restore_autocommit()
    return attempt


def _publish(attempt: Run) -> Outcome:
    try:
        function, args, kwargs = _resolve(attempt)
    except UnknownFunction:
        return Unknown()
    except (BadEventSignature, UnreadableEvent) as error:
        return Dead(describe(error), error)
    try:
        function(*args, **kwargs)
    except settings.non_retryable() as error:
        return Dead(describe(error, with_type=True), error)
    except Exception as error:
        return Failed(error)
    return Published()


def _resolve(attempt: Run) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Return the call that a row means, and note in ``attempt`` what its signals carry.

    Raises:
        UnknownFunction, BadEventSignature, UnreadableEvent
    """
    event = attempt.row
    if settings.VERIFY_EVENTS_SIGNATURE:
        verify(event)
    function = registry.find(event.name)
    args, kwargs = decode_call(event.body, event.version)
    attempt.sender, attempt.payload = function.func, args[0] if args else {}
    return function.func, args, kwargs


def announce_burial(event: Event) -> None:
    """Send the signals of an event that the sweep buried, since it killed its workers."""
    outcome = Dead(event.error_message, LeaseRanOut())
    attempt = Run(event, outcome, by_relay=True, payload={}, is_recorded=True)
    with suppress(UnknownFunction, BadEventSignature, UnreadableEvent):
        _resolve(attempt)
    attempt.announce()


def _unless_last(outcome: Outcome, seen: int) -> Outcome:
    """Return what ``outcome`` comes to after ``seen`` failures: the last failure is the end."""
    if not isinstance(outcome, Failed) or not is_last_attempt(seen):
        return outcome
    return Dead(given_up(seen, describe(outcome.error, with_type=True)), outcome.error)


def _transition(attempt: Run) -> bool:
    event = attempt.row
    match attempt.outcome:
        case Published():
            return event.mark_sent() if _is_kept(attempt) else event.delete_sent()
        case Unknown():
            attempt.pause = timedelta(seconds=settings.RELAY_INTERVAL_SECONDS)
            return event.put_back(run_after=from_now(attempt.pause))
        case Failed(error=error):
            attempt.pause = backoff(event.error_count)
            return event.put_back(
                run_after=from_now(attempt.pause),
                error_count=event.error_count + 1,
                error_message=describe(error, with_type=True),
                fingerprint=fingerprint(event.name, error),
            )
        case Dead(reason=reason, error=error):
            return event.bury(reason, error)
    raise AssertionError(f"no transition for {attempt.outcome!r}")


def _is_kept(attempt: Run) -> bool:
    if attempt.by_relay:
        return not settings.DELETE_AFTER_SEND
    return settings.PERSIST_ALL_EVENTS


def _signal_for(attempt: Run) -> Any:
    match attempt.outcome, attempt.by_relay:
        case Published(), False:
            return signals.event_published
        case Published(), True:
            return signals.event_published_by_events_relay
        case Failed(), False:
            return signals.event_failed_to_publish
        case Failed(), True:
            return signals.event_failed_to_publish_by_events_relay
        case Dead(), False:
            return signals.event_permanently_failed
        case Dead(), True:
            return signals.event_permanently_failed_by_events_relay
    return None


def _report(error: Exception) -> None:
    """Hand the error to the user's error tracker, whose own errors must not stop the relay."""
    try:
        settings.capture_exception(error)
    except Exception:
        logging.getLogger("jaiminho_celery").exception("DEFAULT_CAPTURE_EXCEPTION raised")
