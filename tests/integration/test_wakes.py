"""Who waited behind a job that is gone begins at once: a kick goes out, and none for nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from parviraptor_celery import cleanup, kicks, signals, sweep
from parviraptor_celery.dispatch import run_lanes
from parviraptor_celery.drains import Budget
from tests.testapp.models import FreeJob, GoOnJob, HoldJob, LaneJob
from tests.unit.jobs import received

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


# Deleted

WAYS_OUT = pytest.mark.parametrize(
    "delete",
    [
        pytest.param(lambda job: job.delete(), id="job"),
        pytest.param(lambda job: one(job).delete(), id="queryset"),
    ],
)
HOLDERS = pytest.mark.parametrize(
    ("queue", "columns"),
    [
        pytest.param(LaneJob, {"run_after": "later"}, id="due later"),
        pytest.param(HoldJob, {"status": "FAILED"}, id="failed, under HOLD_LANE"),
        pytest.param(LaneJob, {"status": "DEFERRED", "run_after": "later"}, id="deferred"),
    ],
)


def one(job: Any) -> Any:
    return type(job).objects.using(job.alias).filter(pk=job.pk)


def jobs_of(queue: Any, using: str, *columns: dict[str, Any]) -> list[Any]:
    """Insert jobs past every kick, and return them as they are in the database."""
    hour = timezone.now() + HOUR
    rows = [
        queue(**{**about, **({"run_after": hour} if about.get("run_after") else {})})
        for about in columns
    ]
    queue.rows(using).bulk_create(rows)
    return list(queue.rows(using).order_by("id"))


@HOLDERS
@WAYS_OUT
def test_deleting_the_job_that_held_its_lane_wakes_the_next(
    using: str, kicked: Kicks, queue: Any, columns: Any, delete: Any
) -> None:
    follower = {"status": "DEFERRED"} if columns.get("status") == "DEFERRED" else {}
    holder, _ = jobs_of(queue, using, columns, follower)
    with transaction.atomic(using=using):
        assert delete(holder)[0] == 1
        assert kicked == [], "the commit comes first"
    assert lanes_of(kicked) == [holder.lane]
    assert run_lanes(queue, using, lanes_of(kicked), Budget.endless()).rows == 1


@WAYS_OUT
def test_deleting_a_job_outside_of_a_transaction_wakes_the_next(
    using: str, kicked: Kicks, delete: Any
) -> None:
    holder, _ = jobs_of(LaneJob, using, {"run_after": "later"}, {})
    delete(holder)
    assert lanes_of(kicked) == [holder.lane]


@pytest.mark.parametrize(
    ("queue", "which", "columns"),
    [
        pytest.param(LaneJob, 0, [{}], id="alone in its lane"),
        pytest.param(LaneJob, 1, [{"run_after": "later"}, {}, {}], id="behind one due later"),
        pytest.param(LaneJob, 1, [{}, {"run_after": "later"}, {}], id="behind one that is due"),
        pytest.param(LaneJob, 0, [{"status": "PROCESSED"}, {}], id="done"),
        pytest.param(LaneJob, 0, [{"status": "IGNORED"}, {}], id="set aside"),
        pytest.param(LaneJob, 0, [{"status": "FAILED", "failed_by": 1}, {}], id="failed with"),
        pytest.param(GoOnJob, 0, [{"status": "FAILED"}, {}], id="failed, under GO_ON"),
        pytest.param(HoldJob, 0, [{"status": "FAILED"}, {"status": "FAILED"}, {}], id="held still"),
        pytest.param(FreeJob, 0, [{"run_after": "later"}, {}], id="independent"),
    ],
)
@WAYS_OUT
def test_deleting_a_job_that_held_nobody_kicks_nobody(
    using: str, kicked: Kicks, queue: Any, which: int, columns: Any, delete: Any
) -> None:
    assert delete(jobs_of(queue, using, *columns)[which])[0] == 1
    assert kicked == []


@pytest.mark.parametrize("state", ["running", "paused"])
def test_deleting_from_a_lane_that_runs_or_is_paused_kicks_nobody(
    using: str, kicked: Kicks, state: str
) -> None:
    holder, follower = jobs_of(LaneJob, using, {"run_after": "later"}, {})
    assert follower.claim() if state == "running" else follower.pause_lane()
    holder.delete()
    assert kicked == []


def test_a_deletion_that_is_rolled_back_kicks_nobody_and_takes_no_other_along(
    using: str, kicked: Kicks
) -> None:
    later = {"run_after": "later"}
    first, _, kept, _ = jobs_of(LaneJob, using, later, {}, {"number": 1, **later}, {"number": 1})
    with transaction.atomic(using=using):
        with transaction.atomic(using=using):
            kept.delete()
            transaction.set_rollback(True, using=using)
        first.delete()
        with transaction.atomic(using=using):
            one(kept).delete()
            transaction.set_rollback(True, using=using)
    assert LaneJob.rows(using).count() == 3
    assert lanes_of(kicked) == [first.lane]


@pytest.mark.parametrize("way", ["one by one", "at once"])
@pytest.mark.parametrize(("lanes", "messages", "most"), [(1, 1, 4), (10, 10, 22), (300, 1, 1)])
def test_many_deletions_cost_few_questions_and_messages(
    using: str, kicked: Kicks, way: str, lanes: int, messages: int, most: int
) -> None:
    hour = timezone.now() + HOUR
    heads = [LaneJob(number=n % lanes, run_after=hour) for n in range(300)]
    LaneJob.rows(using).bulk_create(heads)
    LaneJob.rows(using).bulk_create([LaneJob(number=n) for n in range(lanes)])
    doomed = LaneJob.rows(using).filter(run_after__isnull=False)

    with CaptureQueriesContext(connections[using]) as queries, transaction.atomic(using=using):
        if way == "one by one":
            for job in doomed:
                job.delete()
            before = len(queries)
        else:
            before = len(queries) + 1
            doomed.delete()
    asked = [query["sql"] for query in queries.captured_queries[before:]]
    assert len([sql for sql in asked if sql.startswith("SELECT")]) <= most
    assert len(kicked) == messages
    if lanes > kicks.BACKLOG:
        about = {"queue": "testapp.LaneJob", "using": using}
        assert kicked == [(kicks.DISPATCH, about)], "all lanes are looked at, by a worker"
        kicked.clear()
        sweep.kick_lanes(LaneJob, using, "")
    assert len(set(lanes_of(kicked))) == lanes


def test_cleaning_asks_for_nobody(using: str, kicked: Kicks) -> None:
    long_ago = timezone.now() - timedelta(days=90)
    old = [LaneJob(status="PROCESSED", modification_date=long_ago) for _ in range(50)]
    LaneJob.rows(using).bulk_create([*old, LaneJob()])
    with CaptureQueriesContext(connections[using]) as queries:
        assert cleanup.clean(LaneJob, using) == 50
    words = [query["sql"].split()[0] for query in queries]
    asked = [word for word in words if word in ("SELECT", "DELETE")]
    assert (asked, kicked) == (["SELECT", "DELETE", "SELECT"], [])


@WAYS_OUT
def test_a_running_job_that_somebody_deletes_is_missed_by_its_worker_who_goes_on(
    using: str, kicked: Kicks, monkeypatch: pytest.MonkeyPatch, delete: Any
) -> None:
    ran = list[int]()

    def process(self: Any) -> None:
        ran.append(self.pk)
        if len(ran) == 1:
            assert delete(one(self).get())[0] == 1  # as somebody else would
            assert LaneJob.rows(using).get().why().code == "ready", "its lane is free at once"

    monkeypatch.setattr(LaneJob, "process", process)
    deleted, follower = jobs_of(LaneJob, using, {}, {})
    with received(signals.lease_lost) as lost:
        run_lanes(LaneJob, using, [deleted.lane], Budget.endless())
    assert ran == [deleted.pk, follower.pk]
    assert [about["job"].pk for about in lost] == [deleted.pk]
    assert kicked == [], "its worker comes by itself: nobody is called to run beside it"


def test_a_manager_has_no_way_to_delete_everything() -> None:
    assert not hasattr(LaneJob.objects, "delete")


# Saved by hand


def saved(job: Any, *, update_fields: list[str] | None = None, **columns: Any) -> None:
    for name, value in columns.items():
        setattr(job, name, value)
    job.save(**({"update_fields": update_fields} if update_fields else {}))


@pytest.mark.parametrize("queue", [LaneJob, FreeJob])
@pytest.mark.parametrize("update_fields", [None, ["run_after"]])
def test_a_job_whose_due_time_is_brought_forward_is_kicked_after_the_commit(
    using: str, kicked: Kicks, queue: Any, update_fields: list[str] | None
) -> None:
    [job] = jobs_of(queue, using, {"run_after": "later"})
    with transaction.atomic(using=using):
        saved(job, run_after=None, update_fields=update_fields)
        assert kicked == []
    assert [(task, about.get("lanes")) for task, about in kicked] == [
        (kicks.PROCESS, [job.lane] if job.lane else None)
    ]
    kicked.clear()
    saved(job, run_after=timezone.now() + timedelta(minutes=5), update_fields=update_fields)
    assert [round(about["countdown"], -2) for _, about in kicked] == [300]


@pytest.mark.parametrize(("before", "after"), [("FAILED", "NEW"), ("IGNORED", "DEFERRED")])
def test_a_job_that_is_to_wait_again_by_hand_is_kicked(
    using: str, kicked: Kicks, before: str, after: str
) -> None:
    [job] = jobs_of(LaneJob, using, {"status": before})
    saved(job, status=after)
    assert lanes_of(kicked) == [job.lane]


def test_a_job_behind_another_is_not_kicked_and_nor_is_one_whose_own_columns_are_saved(
    using: str, kicked: Kicks
) -> None:
    first, second = jobs_of(LaneJob, using, {}, {"run_after": "later"})
    saved(second, run_after=None)
    saved(first, script="another", priority=3)
    assert kicked == []


@pytest.mark.parametrize("status", ["FAILED", "NEW"])
def test_who_waited_behind_a_job_that_is_set_aside_by_hand_is_kicked(
    using: str, kicked: Kicks, status: str
) -> None:
    holder, follower = jobs_of(HoldJob, using, {"status": status, "run_after": "later"}, {})
    saved(holder, status="IGNORED")
    assert lanes_of(kicked) == [holder.lane]
    kicked.clear()
    saved(follower, status="IGNORED")
    assert kicked == [], "nobody waits behind it"
