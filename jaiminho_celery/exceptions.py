"""What can go wrong, by name."""

from __future__ import annotations


class OutboxError(Exception):
    """Base of the outbox's own errors."""


class NotRegistrable(OutboxError, TypeError):
    """The function has no name under which a worker could find it again."""


class NameTaken(OutboxError, ValueError):
    """Two functions claim the same registered name."""


class UnknownFunction(OutboxError, LookupError):
    """No function is registered under the name that a row carries, in this process."""


class UnknownReceiver(UnknownFunction):
    """No class, or no Celery app, of this process has the method that a row calls."""


class UnknownStrategy(OutboxError, ValueError):
    """There is no such publish strategy."""


class UnknownAlias(OutboxError, ValueError):
    """``using`` names a database that DATABASES lacks."""


class UnknownStream(OutboxError, LookupError):
    """No decorated function and no row belongs to the stream."""


class NameTooLong(OutboxError, ValueError):
    """A stream, key or function name doesn't fit its column."""


class InvalidName(OutboxError, TypeError):
    """A stream, function name or alias is no text that every database can store."""


class KeyFailed(OutboxError, TypeError):
    """``key=`` raised, or returned what can't be stored as a key."""


class NotSerializable(OutboxError, TypeError):
    """An argument can't make the way through JSON and back."""


class PayloadTooLarge(OutboxError, ValueError):
    """The encoded arguments exceed MAX_PAYLOAD_BYTES."""


class BadSelection(OutboxError, ValueError):
    """Which dead letters are meant is not said, or not clearly."""


class LeaseRanOut(OutboxError):
    """The process that published the event died, or gave no sign of life for its lease."""

    def __str__(self) -> str:
        return self.__doc__ or ""


class TransactionLeftOpen(OutboxError):
    """The function left a transaction open; what it wrote there was rolled back."""

    def __str__(self) -> str:
        return self.__doc__ or ""


class BadEventSignature(OutboxError):
    """The row is not what was signed when it was written."""


class UnreadableEvent(OutboxError):
    """The row's body is not what this version of the outbox writes."""


class NotRouted(OutboxError):
    """The broker took a message and found no queue for it."""


class Nacked(OutboxError):
    """The broker refused to take a message for now: its queue is full, for example."""


class BreaksConnection(OutboxError):
    """The broker closes the connection whenever it gets this message."""


class NotNow(OutboxError):
    """What takes the events is away as a whole; none of them is to blame, or counts an error.

    Raised ``from`` the error that showed it.
    """


class DrainFailed(OutboxError, AssertionError):
    """An event or task failed while a test drained the outbox."""


class DrainEndless(OutboxError, AssertionError):
    """Draining the outbox writes event after event."""
