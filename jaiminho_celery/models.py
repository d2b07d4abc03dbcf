"""The outbox row, and the verbs that move it from state to state."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from parviraptor_celery.clock import from_now, now
from parviraptor_celery.fencing import AT_REST, FencedRow, one_more
from parviraptor_celery.indexes import OneOf, StatusIndex, UniqueWhileSet, is_leased
from parviraptor_celery.statements import insert
from parviraptor_celery.texts import describe
from parviraptor_celery.ticks import AbstractTick

from . import kicks, registry
from .backoff import backoff, given_up, is_last_attempt
from .conf import settings
from .constants import (
    FINGERPRINT_LENGTH,
    KEY_LENGTH,
    LANE_LENGTH,
    NAME_LENGTH,
    STREAM_LENGTH,
    PublishStrategyType,
)
from .exceptions import LeaseRanOut
from .fingerprints import fingerprint
from .querysets import EventQuerySet
from .states import TRANSITIONS, EventStatus

UNBLEMISHED: dict[str, Any] = {"error_message": "", "fingerprint": ""}
UNFAILED: dict[str, Any] = {"error_count": 0, **UNBLEMISHED}


class Event(FencedRow):
    """A call that is to be made after the transaction that wrote it has committed.

    The row carries a registered name and JSON, never code. ``lane`` groups the events that
    keep their order: those of one stream and key; it is NULL where no order was asked for.
    """

    Status = EventStatus
    TRANSITIONS = TRANSITIONS
    LEASED = EventStatus.PUBLISHING
    STAMP = "modified_at"

    uuid = models.UUIDField(default=uuid.uuid4, editable=False)
    stream = models.CharField(max_length=STREAM_LENGTH, blank=True, default="")
    key = models.CharField(max_length=KEY_LENGTH, blank=True, default="")
    strategy = models.CharField(
        max_length=20, choices=[(item.value, item.value) for item in PublishStrategyType]
    )
    status = models.CharField(max_length=10, choices=EventStatus, default=EventStatus.WAITING)
    name = models.CharField(max_length=NAME_LENGTH)
    version = models.SmallIntegerField()
    body = models.TextField()
    signature = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    modified_at = models.DateTimeField(default=timezone.now, editable=False)
    sent_at = models.DateTimeField(null=True, blank=True)
    run_after = models.DateTimeField(null=True, blank=True, default=timezone.now)
    error_count = models.IntegerField(default=0, validators=[MinValueValidator(0)])
    error_message = models.TextField(blank=True, default="")
    fingerprint = models.CharField(max_length=FINGERPRINT_LENGTH, blank=True, default="")
    lane = models.CharField(max_length=LANE_LENGTH, null=True, editable=False)  # noqa: DJ001
    running_lane = models.CharField(max_length=LANE_LENGTH, null=True, editable=False)  # noqa: DJ001
    attempt = models.IntegerField(default=0, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    leased_by = models.CharField(max_length=100, blank=True, default="", editable=False)

    objects: ClassVar[models.Manager[Any]] = EventQuerySet.as_manager()

    class Meta:
        ordering = ("id",)
        indexes: ClassVar[list[models.Index]] = [
            StatusIndex(fields=["lane", "id"], status=EventStatus.WAITING),
            StatusIndex(fields=["run_after", "id"], status=EventStatus.WAITING, without_lane=True),
            StatusIndex(fields=["lane", "id"], status=EventStatus.DEAD, partial_only=True),
            StatusIndex(fields=["id"], status=EventStatus.PUBLISHING),
            StatusIndex(fields=["sent_at"], status=EventStatus.SENT),
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            UniqueWhileSet(field="running_lane", name="jaiminho_celery_event_running"),
            models.CheckConstraint(
                name="jaiminho_celery_event_status", condition=OneOf("status", *EventStatus.values)
            ),
            models.CheckConstraint(
                name="jaiminho_celery_event_lease",
                condition=is_leased(EventStatus.PUBLISHING),
            ),
            # What keeps no order is found by its due time, which it therefore has to have.
            models.CheckConstraint(
                name="jaiminho_celery_event_due",
                condition=~Q(status=EventStatus.WAITING)
                | Q(lane__isnull=False)
                | Q(run_after__isnull=False),
            ),
            models.CheckConstraint(
                name="jaiminho_celery_event_sent",
                condition=Q(status=EventStatus.SENT, sent_at__isnull=False)
                | (~Q(status=EventStatus.SENT) & Q(sent_at__isnull=True)),
            ),
        ]
        permissions = (
            ("replay_event", "Can replay, skip and discard dead letters"),
            ("view_event_payload", "Can see what an event carries"),
        )

    def __str__(self) -> str:
        return f"Event {self.pk} ({self.name}, {self.status})"

    @classmethod
    def lease_seconds(cls) -> float:
        return settings.LEASE_SECONDS

    @classmethod
    def rows(cls, using: str) -> EventQuerySet:
        return EventQuerySet(cls, using=using)

    def insert(self, using: str) -> None:
        """Insert this new event into the database ``using``; its values may be expressions."""
        insert(self, using)

    def put_back(self, **columns: Any) -> bool:
        """Let the event wait for the relay, due at once; by itself this counts nothing."""
        return self.rest(EventStatus.WAITING, **{"run_after": now(), **columns})

    def rescue(self) -> bool:
        """Put an event back whose lease ran out.

        The first time it is due at once, uncounted: its hook died. Later on it counts as a
        failure and waits for a back-off, since the event may be what kills its workers. It
        reaches MAX_ATTEMPTS by that only if it failed before: an event without failures may
        have been leased together with the one that kills.
        """
        if self.attempt <= 1:
            return self.put_back()
        if registry.goes_by_the_batch(self.name):  # nobody knows which of the batch it was
            return self.put_back(run_after=from_now(backoff(self.attempt)))
        if self.error_count and is_last_attempt(self.error_count):
            error = LeaseRanOut()
            return self.bury(given_up(self.error_count, describe(error)), error)
        pause = backoff(self.error_count)
        return self.put_back(error_count=one_more(self.error_count), run_after=from_now(pause))

    def mark_sent(self) -> bool:
        """Note that the event was published, and keep the row for the cleaner."""
        return self.rest(EventStatus.SENT, sent_at=now(), **UNBLEMISHED)

    def delete_sent(self) -> bool:
        """Delete the event, fenced, because it was published."""
        return self._delete()

    @classmethod
    def keep_leases(cls, events: list[Event], using: str) -> bool:
        """Renew the leases of a batch for a heartbeat; False when all of them are lost."""
        lease = {"lease_until": from_now(cls.lease_seconds())}
        return sum(rows.update(**lease) for rows, _ in cls.held_together(events, using)) > 0

    @classmethod
    def settle_together(
        cls, events: list[Event], using: str, columns: Mapping[str, Any] | None
    ) -> bool:
        """End the leases of a batch in one transaction: write ``columns``, or delete (None).

        All or nothing: False, and nothing is written, if one of the events was no longer ours.
        """
        try:
            with transaction.atomic(using=using):
                for rows, expected in cls.held_together(events, using):
                    done = rows.erase() if columns is None else cls._rest_all(rows, columns)
                    if done != expected:
                        raise _LeaseLost
        except _LeaseLost:
            return False
        return True

    @classmethod
    def settle_together_again(
        cls, events: list[Event], using: str, columns: Mapping[str, Any] | None
    ) -> bool:
        """Settle a batch when an earlier try may have gone through: then all of it is settled."""
        to = None if columns is None else columns["status"]
        return cls.settle_together(events, using, columns) or all(
            event.has_come_to(to) for event in events
        )

    @classmethod
    def _rest_all(cls, rows: EventQuerySet, columns: Mapping[str, Any]) -> int:
        return rows.update(**{**AT_REST, "modified_at": now(), **columns})

    def bury(self, reason: str, error: Exception) -> bool:
        """Make the event a dead letter: kept, visible, and not retried by itself."""
        return self.rest(
            EventStatus.DEAD,
            error_message=reason,
            error_count=one_more(self.error_count),
            fingerprint=fingerprint(self.name, error),
        )

    def replay(self, *, due: datetime | None = None, nudge: bool = True) -> bool:
        """Let a dead letter wait for the relay again, in its old place, as if it were new.

        ``due`` is the same moment for events that are replayed together (None: now, by the
        database's clock). Without ``nudge`` the caller tells the relay; likewise below.
        """
        self.expect(EventStatus.DEAD, "replayed")
        fresh = {"run_after": due or now(), **UNFAILED}
        with self._nudging(nudge, even_without_lane=True):
            return self.move(EventStatus.WAITING, **fresh)

    def skip(self, *, nudge: bool = True) -> bool:
        """Set a dead letter aside, so that its lane goes on."""
        self.expect(EventStatus.DEAD, "skipped")
        with self._nudging(nudge):
            return self.move(EventStatus.SKIPPED)

    def discard(self, *, nudge: bool = True) -> bool:
        """Delete a dead letter for good, so that its lane goes on."""
        self.expect(EventStatus.DEAD, "discarded")
        with self._nudging(nudge):
            return self._delete()

    @contextmanager
    def _nudging(self, nudge: bool, *, even_without_lane: bool = False) -> Iterator[None]:
        """Write a person's decision in a transaction, after which the relay hears of it."""
        if not nudge:
            yield
            return
        with transaction.atomic(using=self.alias):
            if self.lane is not None:
                kicks.on_commit(self, self.alias)
            elif even_without_lane:
                kicks.pool_on_commit(self.alias)
            yield

    def _delete(self) -> bool:
        return bool(self.rows(self.alias).filter(**self._fence(self.status)).erase())


class _LeaseLost(Exception):
    """Rolls a transaction back."""


class Tick(AbstractTick):
    """When the outbox was last swept, and where the next round starts."""

    class Meta(AbstractTick.Meta):
        pass
