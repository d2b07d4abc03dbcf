"""Who waited behind a job that is gone begins at once: a kick goes out, and none for nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from parviraptor_celery import kicks, sweep
from tests.testapp.models import LaneJob

Kicks = list[tuple[str, dict[str, Any]]]
KEY = "nightly"
HOUR = timedelta(hours=1)


@pytest.fixture
def kicked(monkeypatch: pytest.MonkeyPatch) -> Kicks:
    """Collect what would be sent to the broker: names of tasks, arguments."""
    sent: Kicks = []
    monkeypatch.setattr(
        "parviraptor_celery.broker.kick", lambda task, **about: sent.append((task, about)) or True
    )
    return sent


def lanes_of(kicked: Kicks) -> list[str]:
    """Return the lanes that were kicked at once."""
    told = [about for task, about in kicked if task == kicks.PROCESS]
    return sorted(lane for about in told if "countdown" not in about for lane in about["lanes"])


# Superseded from another lane


def expire_and_rescue(job: Any) -> None:
    past = timezone.now() - timedelta(minutes=5)
    type(job).rows(job.alias).filter(pk=job.pk).update(lease_until=past)
    assert sweep.rescue(type(job), job.alias) == 1


WAYS_BACK = pytest.mark.parametrize(
    "way",
    [
        pytest.param(lambda job: job.put_back(), id="put back"),
        pytest.param(lambda job: job.rest("DEFERRED"), id="deferred"),
        pytest.param(lambda job: job.update_job_for_being_resumed(), id="handed back"),
        pytest.param(expire_and_rescue, id="rescued"),
    ],
)


def two_that_share_a_key(using: str, pause: timedelta = HOUR) -> tuple[Any, Any]:
    """Return an older job that was put back, in lane a, and one that runs in lane b."""
    older = running(using, "a")
    newer = running(using, "b")
    assert older.put_back(run_after=timezone.now() + pause)
    return older, newer


def running(using: str, shop: str) -> Any:
    job = LaneJob.enqueue(using=using, shop=shop, unique_key=KEY)
    job = LaneJob.rows(using).get(pk=job.pk)
    assert job.claim()
    return job


@WAYS_BACK
def test_the_lane_of_a_job_that_was_superseded_from_another_lane_goes_on(
    using: str, kicked: Kicks, way: Any
) -> None:
    older, newer = two_that_share_a_key(using)
    LaneJob.enqueue(using=using, shop="a")
    kicked.clear()

    with transaction.atomic(using=using):
        way(newer)
        assert older.lane not in lanes_of(kicked), "the commit comes first"
    assert LaneJob.rows(using).get(pk=older.pk).status == "SQUASHED"
    assert lanes_of(kicked).count(older.lane) == 1


@pytest.mark.parametrize("behind", ["nobody", "not due", "running", "paused"])
def test_nobody_is_kicked_where_nobody_can_go_on(using: str, kicked: Kicks, behind: str) -> None:
    older, newer = two_that_share_a_key(using)
    if behind != "nobody":
        run_after = HOUR if behind == "not due" else None
        follower = LaneJob.enqueue(using=using, shop="a", run_after=run_after)
        if behind == "running":
            assert follower.claim()
        if behind == "paused":
            follower.pause_lane()
    kicked.clear()

    assert newer.put_back()
    assert LaneJob.rows(using).get(pk=older.pk).status == "SQUASHED"
    assert lanes_of(kicked) == []


def test_a_rollback_kicks_nobody(using: str, kicked: Kicks) -> None:
    older, newer = two_that_share_a_key(using)
    LaneJob.enqueue(using=using, shop="a")
    kicked.clear()
    with transaction.atomic(using=using):
        assert newer.put_back()
        transaction.set_rollback(True, using=using)
    assert lanes_of(kicked) == []
    assert LaneJob.rows(using).get(pk=older.pk).status == "NEW"
