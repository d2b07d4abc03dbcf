"""No log line holds what a row carries, whatever goes wrong with it, on any engine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import Error, transaction
from django.db.models import F
from django.utils import timezone

from jaiminho_celery import registry as outbox_registry
from jaiminho_celery import sweep as relay_sweep
from jaiminho_celery.models import Event
from parviraptor_celery import broker, registry, sweep
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from tests.faults.canaries import PAYLOAD, listening
from tests.testapp import outbox as functions
from tests.testapp.models import LaneJob, PickyField, PickyFreeJob, PickyLaneJob

SOON = timezone.now() + timedelta(hours=1)


class Unreadable(ValueError):
    """Quotes the whole value, as errors of conversions do."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, one_database: str) -> None:
    """These tests are the workers, and a text with the canary can't be read."""

    def refuse(self: Any, value: Any) -> None:
        if value and PAYLOAD in value:
            raise Unreadable(value)

    monkeypatch.setattr(broker, "kick", lambda *_, **__: True)
    monkeypatch.setattr(PickyField, "refuse", refuse)
    functions.forget()


def test_a_row_without_a_lane_that_can_not_be_read_gets_one_and_is_not_quoted(using: str) -> None:
    PickyLaneJob.enqueue_many([PickyLaneJob(shop=shop) for shop in "ab"], using=using)
    PickyLaneJob.rows(using).update(lane=None)
    PickyLaneJob.rows(using).filter(shop="a").update(script=PAYLOAD)
    with listening() as lines:
        sweep.sweep_all(force=True)
        lanes = list(PickyLaneJob.rows(using).order_by("shop").values_list("lane", flat=True))
        assert None not in lanes
        run_lanes(PickyLaneJob, using, lanes, Budget.endless())
    assert PickyLaneJob.rows(using).filter(status="PROCESSED").count() == 1
    assert PAYLOAD not in "".join(lines)


def test_rows_that_can_not_be_read_are_not_quoted(using: str) -> None:
    for queue in (PickyLaneJob, PickyFreeJob):
        queue.enqueue_many([queue(), queue(), queue()], using=using)
        first, second, _ = queue.rows(using).order_by("id").values_list("pk", flat=True)
        queue.rows(using).filter(pk=first).update(script=PAYLOAD)
        queue.rows(using).filter(pk=second).update(
            script=PAYLOAD,
            status="PROCESSING",
            running_lane=F("lane"),
            lease_until=timezone.now() - timedelta(1),
        )
    with listening() as lines:
        sweep.sweep_all(force=True)
        lanes = set(PickyLaneJob.rows(using).values_list("lane", flat=True))
        run_lanes(PickyLaneJob, using, sorted(lanes), Budget.endless())
        run_pool(PickyFreeJob, using, Budget.endless())
    assert any("can't be read here" in line for line in lines)
    assert PAYLOAD not in "".join(lines)


def refused(using: str) -> None:
    """Let the database refuse a row; PostgreSQL quotes all of it."""
    functions.in_order(PAYLOAD)
    with transaction.atomic(using=using):
        Event.rows(using).update(status="NOPE")


@pytest.mark.parametrize("app", ["the queues", "the outbox"])
def test_a_row_that_a_constraint_refuses_is_not_quoted(
    using: str, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as lines:
        if app == "the queues":
            left_out = registry.for_each_queue(lambda *_: refused(using), [LaneJob])
        else:
            left_out = outbox_registry.for_each_alias(refused)
    assert len(left_out) == 1
    assert any("was left out" in line for line in lines)
    assert PAYLOAD not in "".join(lines)


def test_the_message_of_a_refusal_does_quote_it(using: str) -> None:
    """Or the test above would show nothing. Only PostgreSQL does."""
    with pytest.raises(Error) as caught:
        refused(using)
    assert (PAYLOAD in str(caught.value)) == (using == "postgresql")


def test_what_functions_raise_and_what_rows_hold_is_not_quoted(using: str) -> None:
    functions.errors["bare"] = ValueError(PAYLOAD)
    with listening() as lines:
        functions.bare(PAYLOAD)
        functions.per_shop(PAYLOAD, payload=PAYLOAD)
        LaneJob.enqueue(using=using, script=f"fail {PAYLOAD}", shop=PAYLOAD)
        LaneJob.enqueue(using=using, script=f"temporary {PAYLOAD}", unique_key=PAYLOAD)
        lanes = set(LaneJob.rows(using).values_list("lane", flat=True))
        Event.rows(using).update(run_after=timezone.now() - timedelta(1))
        relay_sweep.relay_here(using, Budget.endless())
        run_lanes(LaneJob, using, sorted(lanes), Budget.endless())
        Event.rows(using).filter(status="WAITING").update(body=f'{{"args": ["{PAYLOAD}"')
        Event.rows(using).update(run_after=timezone.now() - timedelta(1))
        relay_sweep.relay_here(using, Budget.endless())
    assert any("failed with ValueError" in line for line in lines)
    assert any("dead letter" in line for line in lines)
    assert PAYLOAD not in "".join(lines)
