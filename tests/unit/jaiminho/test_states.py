"""The states of an event: which may follow which, and what the database enforces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from jaiminho_celery.models import Event
from jaiminho_celery.states import TRANSITIONS, EventStatus
from parviraptor_celery.exceptions import IllegalTransition


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(EventStatus)


def test_nothing_follows_after_an_event_was_sent() -> None:
    assert TRANSITIONS[EventStatus.SENT] == frozenset()


def test_only_what_waits_is_taken_up() -> None:
    taken = {before for before, after in TRANSITIONS.items() if EventStatus.PUBLISHING in after}
    assert taken == {EventStatus.WAITING}


def illegal() -> Iterator[tuple[EventStatus, EventStatus]]:
    for before in EventStatus:
        yield from ((before, after) for after in EventStatus if after not in TRANSITIONS[before])


@pytest.mark.parametrize(("before", "after"), list(illegal()))
def test_a_transition_outside_the_table_is_refused_without_a_query(
    before: EventStatus, after: EventStatus
) -> None:
    event = Event(pk=1, status=before)  # a query would fail: this test has no database
    with pytest.raises(IllegalTransition):
        event.move(after)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "columns",
    [
        pytest.param({"status": "BOGUS"}, id="an unknown status"),
        pytest.param({"status": "PUBLISHING"}, id="taken up without a lease"),
        pytest.param({"lease_until": timezone.now()}, id="a lease at rest"),
        pytest.param({"running_lane": "a"}, id="a lane held at rest"),
        pytest.param({"status": "SENT"}, id="sent at no time"),
        pytest.param({"sent_at": timezone.now()}, id="waiting and sent"),
    ],
)
def test_the_database_refuses_what_can_not_be(columns: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Event.objects.create(version=1, **columns)
    assert not Event.objects.exists()


@pytest.mark.django_db
def test_the_database_refuses_a_second_running_event_of_a_lane(outbox: Any) -> None:
    outbox.in_order(1)
    outbox.in_order(2)
    first, second = Event.objects.order_by("id")
    assert first.claim()
    with pytest.raises(IntegrityError), transaction.atomic():
        second.claim()
