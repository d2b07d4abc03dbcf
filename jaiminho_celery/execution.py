"""Publishes one leased event and settles it; the hook and the relay both come through here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from parviraptor_celery.backoff import full_jitter
from parviraptor_celery.clock import from_now
from parviraptor_celery.fencing import one_more
from parviraptor_celery.leases import heartbeat
from parviraptor_celery.left_open import open_transactions, undo_left_open
from parviraptor_celery.signals import tell
from parviraptor_celery.texts import describe

from . import methods, registry, signals
from .backoff import backoff, given_up, is_last_attempt
from .conf import settings
from .exceptions import (
    BadEventSignature,
    LeaseRanOut,
    NotNow,
    TransactionLeftOpen,
    UnknownFunction,
    UnknownReceiver,
    UnreadableEvent,
)
from .fingerprints import fingerprint
from .models import Event
from .outcomes import Dead, Failed, Outcome, Postponed, Published, Unknown
from .registry import Call, OutboxFunction
from .serialization import decode_call
from .signing import verify
from .states import EventStatus


@dataclass
class Run:
    """An attempt to publish: the event, how it ended, and who made it."""

    row: Event
    outcome: Outcome
    by_relay: bool
    sender: Any = None
    payload: Any = None
    receiver: Any = None
    """The class or the Celery app that a method is called on."""
    content: tuple[OutboxFunction, Call] | None = None
    """What the row says, where it need not be read: in the process that has just written it."""
    is_settled: bool = False
    is_recorded: bool = False
    pause: timedelta | None = None
    seen: int | None = None
    """The error count before this attempt."""

    size: ClassVar[int] = 1
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

    def settle_again(self) -> bool:
        """Settle when an earlier try may have gone through: then the outcome is recorded."""
        self.is_recorded = self.settle() or self.row.has_come_to(self._end())
        return self.is_recorded

    def _end(self) -> EventStatus | None:
        """Return the state that the outcome brings the event to, or None if it is deleted."""
        match self.outcome:
            case Published():
                return EventStatus.SENT if is_kept(self) else None
            case Dead():
                return EventStatus.DEAD
        return EventStatus.WAITING

    def refuse(self, error: Exception) -> None:
        """Count an outcome that the database refuses to store as a failure."""
        self.outcome = Failed(error)

    @property
    def error(self) -> Exception | None:
        return getattr(self.outcome, "error", None)

    def announce(self, *, report: bool = True) -> None:
        """Send the signals of a settled attempt, outside of any transaction of the engine.

        ``report`` its error to the user's error tracker, unless that was done already.
        """
        event = self.row
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
        if report and self.error is not None:
            settings.capture_exception(self.error)


def run(event: Event, *, by_relay: bool, receiver: Any = None) -> Run:
    """Publish a leased event, renewing its lease; what the function raises becomes an outcome.

    The hook knows the ``receiver`` of a method; the relay finds it by what the row says.
    """
    attempt = Run(event, Published(), by_relay, payload={}, receiver=receiver)
    with heartbeat.keep(event.keep_lease, settings.LEASE_SECONDS):
        transactions = open_transactions()
        _publish(attempt)
        if undo_left_open(transactions) and isinstance(attempt.outcome, Published):
            attempt.outcome = outcome_of(TransactionLeftOpen())
    return attempt


def opened(attempt: Run) -> tuple[OutboxFunction, Call] | None:
    """Return the function and the arguments of an event, or None and why not as the outcome."""
    try:
        content = attempt.content or _read(attempt)
    except UnknownReceiver as error:
        attempt.outcome = Unknown(str(error))
        return None
    except UnknownFunction:
        attempt.outcome = Unknown()
        return None
    except (BadEventSignature, UnreadableEvent) as error:
        attempt.outcome = Dead(describe(error), error)
        return None
    function, (args, _) = content
    attempt.sender, attempt.payload = function.func, args[0] if args else {}
    return content


def _read(attempt: Run) -> tuple[OutboxFunction, Call]:
    """Read a row; its signature is verified before anything else of it is used."""
    event = attempt.row
    if settings.VERIFY_EVENTS_SIGNATURE:
        verify(event)
    function = registry.find(event.name)
    call = decode_call(event.body, event.version)
    if attempt.receiver is None:
        attempt.receiver = methods.find(function.func, event.body)
    return function, call


def outcome_of(error: Exception | None) -> Outcome:
    """Return the outcome of a call that raised ``error``, or of one that didn't (None)."""
    if error is None:
        return Published()
    if isinstance(error, UnknownFunction):
        return Unknown(str(error))
    if isinstance(error, NotNow):
        return Postponed(error.__cause__ if isinstance(error.__cause__, Exception) else error)
    if isinstance(error, UnreadableEvent):  # as the function found that reads the rest of it
        return Dead(describe(error), error)
    if isinstance(error, settings.non_retryable()):
        return Dead(describe(error, with_type=True), error)
    return Failed(error)


def pause_of_all() -> timedelta:
    """Return a random pause of up to one round of the relay, for what waits for the broker."""
    interval = settings.RELAY_INTERVAL_SECONDS
    return full_jitter(0, base_seconds=interval, cap_seconds=interval)


def postponement(error: Exception, pause: timedelta) -> dict[str, Any]:
    """Return the columns of an event that waits for the broker."""
    return {"run_after": from_now(pause), "error_message": describe(error, with_type=True)}


def _publish(attempt: Run) -> None:
    if (found := opened(attempt)) is None:
        return
    function, (args, kwargs) = found
    try:
        methods.call(function.func, attempt.receiver, args, kwargs)
    except Exception as error:
        attempt.outcome = outcome_of(error)


def announce_burial(event: Event) -> None:
    """Send the signals of an event that the sweep buried, since it killed its workers."""
    outcome = Dead(event.error_message, LeaseRanOut())
    attempt = Run(event, outcome, by_relay=True, payload={}, is_recorded=True)
    opened(attempt)  # for what the signals carry
    attempt.outcome = outcome
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
            return event.mark_sent() if is_kept(attempt) else event.delete_sent()
        case Unknown():
            attempt.pause = timedelta(seconds=settings.RELAY_INTERVAL_SECONDS)
            return event.put_back(run_after=from_now(attempt.pause))
        case Postponed(error=error):
            attempt.pause = pause_of_all()
            return event.put_back(**postponement(error, attempt.pause))
        case Failed(error=error):
            attempt.pause = backoff(event.error_count)
            return event.put_back(
                run_after=from_now(attempt.pause),
                error_count=one_more(event.error_count),
                error_message=describe(error, with_type=True),
                fingerprint=fingerprint(event.name, error),
            )
        case Dead(reason=reason, error=error):
            return event.bury(reason, error)
    raise AssertionError(f"no transition for {attempt.outcome!r}")


def is_kept(attempt: Run) -> bool:
    if attempt.by_relay:
        return not settings.DELETE_AFTER_SEND
    return settings.PERSIST_ALL_EVENTS


def _signal_for(attempt: Run) -> Any:
    match attempt.outcome, attempt.by_relay:
        case Published(), False:
            return signals.event_published
        case Published(), True:
            return signals.event_published_by_events_relay
        case Failed() | Postponed(), False:
            return signals.event_failed_to_publish
        case Failed() | Postponed(), True:
            return signals.event_failed_to_publish_by_events_relay
        case Dead(), False:
            return signals.event_permanently_failed
        case Dead(), True:
            return signals.event_permanently_failed_by_events_relay
    return None
