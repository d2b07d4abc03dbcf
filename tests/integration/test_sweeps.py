"""Sweeps and kicks: nothing that waits is forgotten, and nothing is asked for without end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.models import F
from django.utils import timezone

from jaiminho_celery import barriers
from jaiminho_celery import cleanup as event_cleanup
from jaiminho_celery import dispatch as event_dispatch
from jaiminho_celery import registry as event_registry
from jaiminho_celery import sweep as relay
from jaiminho_celery import tasks as event_tasks
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery import aliases, cleanup, kicks, sweep, tasks
from parviraptor_celery.dispatch import run_lanes
from parviraptor_celery.drains import Budget
from tests import servers
from tests.integration.threads import open_transaction
from tests.testapp.models import AtomicJob, FifoJob, FreeJob, LaneJob
from tests.unit.conftest import messages

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
EVERYWHERE = pytest.mark.django_db(transaction=True, databases="__all__")

Kicks = list[tuple[str, dict[str, Any]]]


class Killed(BaseException):
    """The process is killed here: nothing of the product may catch this."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget which databases have which tables, and the functions of these tests."""
    monkeypatch.setattr(aliases, "_tables", {})
    known = dict(event_registry._functions)
    yield
    event_registry._functions.clear()
    event_registry._functions.update(known)


@pytest.fixture
def kicked(monkeypatch: pytest.MonkeyPatch) -> Kicks:
    """Collect what would be sent to the broker: names of tasks, arguments."""
    sent: Kicks = []
    monkeypatch.setattr(
        "parviraptor_celery.broker.kick", lambda task, **about: sent.append((task, about)) or True
    )
    return sent


class WritesTo:
    """A database router that sends everything, or one app, to one database."""

    def __init__(self, alias: str, app: str | None = None) -> None:
        self.alias, self.app = alias, app

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        return self.alias if self.app in (None, model._meta.app_label) else None

    db_for_read = db_for_write

    def allow_migrate(self, db: str, app_label: str, **_: Any) -> bool | None:
        return None if self.app is None else (db == self.alias) == (app_label == self.app)


@pytest.fixture
def _only_here(using: str, settings: Any) -> None:
    """Let all sweeps of the test look at its own database only."""
    settings.DATABASE_ROUTERS = [WritesTo(using)]
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "SWEEP_LANES": 5}


# One table or database that is away


@pytest.fixture
def _without_a_table(using: str, _only_here: None) -> Iterator[None]:
    """AtomicJob, which comes before the others, has no table yet: a deploy is under way."""
    table = AtomicJob._meta.db_table
    _rename(using, table, "not_yet")
    yield
    _rename(using, "not_yet", table)


def _rename(using: str, table: str, to: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {to}")


@pytest.mark.usefixtures("_without_a_table")
def test_a_queue_without_a_table_does_not_keep_the_sweep_from_the_others(
    using: str, kicked: Kicks
) -> None:
    waiting = FifoJob.enqueue(using=using)
    dead = LaneJob.enqueue(using=using)
    LaneJob.rows(using).get().claim()
    LaneJob.rows(using).update(lease_until=timezone.now() - timedelta(minutes=5))
    kicked.clear()

    assert sweep.sweep_all(force=True)

    assert lanes_of(kicked) == {waiting.lane, dead.lane}
    assert LaneJob.rows(using).get().status == "NEW"


@pytest.mark.usefixtures("_without_a_table", "kicked")
def test_a_queue_without_a_table_does_not_keep_the_cleaner_from_the_others(using: str) -> None:
    FifoJob.enqueue(using=using)
    FifoJob.rows(using).update(
        status="PROCESSED", modification_date=timezone.now() - timedelta(days=99)
    )
    assert cleanup.clean_all() == 1
    assert not FifoJob.rows(using).exists()


# Events that kill their worker


def test_an_event_that_kills_its_workers_does_not_hold_the_others_of_its_batch(
    using: str, kicked: Kicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: set[int] = set()

    @save_to_outbox(using=using, name="tests.killer")
    def publish(number: int) -> None:
        if number == 0:
            raise Killed
        published.add(number)

    with monkeypatch.context() as patch:  # all hooks died
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        for number in range(14):
            publish(number)
    monkeypatch.setattr("parviraptor_celery.pool_feed.PoolFeed.close", lambda self: None)
    minute = timedelta(minutes=1)  # for all alike: the killer, with the lowest id, comes first
    monkeypatch.setattr("jaiminho_celery.models.full_jitter", lambda *_, **__: minute)

    for _ in range(4):
        an_hour_passes(using)
        with contextlib.suppress(Killed):
            relay.relay_here(using, Budget.endless())

    assert published == set(range(1, 14))
    assert Event.rows(using).exclude(status="SENT").count() == 1


def an_hour_passes(using: str) -> None:
    hour = timedelta(hours=1)
    events = Event.rows(using).exclude(status="SENT")
    events.update(run_after=F("run_after") - hour, lease_until=F("lease_until") - hour)


# Kicks that are left out, and kicks for many


def test_jobs_that_are_due_are_kicked_though_many_that_are_not_wait_before_them(
    using: str, kicked: Kicks
) -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    FreeJob.rows(using).bulk_create([FreeJob(run_after=tomorrow) for _ in range(kicks.BACKLOG + 5)])
    for _ in range(3):
        FreeJob.enqueue(using=using)
    assert [task for task, _ in kicked] == [kicks.PROCESS] * 3


@pytest.mark.parametrize(("jobs", "messages"), [(1, 1), (3, 3), (200, kicks.BACKLOG)])
def test_many_independent_jobs_wake_several_workers(
    using: str, kicked: Kicks, jobs: int, messages: int
) -> None:
    FreeJob.enqueue_many([FreeJob() for _ in range(jobs)], using=using)
    assert [task for task, _ in kicked] == [kicks.PROCESS] * messages


@pytest.mark.usefixtures("_only_here")
@pytest.mark.parametrize("sweep_lanes", [5, 500])
def test_jobs_of_more_lanes_than_messages_may_name_are_all_kicked_at_once(
    using: str, kicked: Kicks, settings: Any, monkeypatch: pytest.MonkeyPatch, sweep_lanes: int
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"DATABASES": [using], "SWEEP_LANES": sweep_lanes}
    monkeypatch.setattr(kicks, "MOST_LANES", 10)
    jobs = LaneJob.enqueue_many([LaneJob(number=at) for at in range(17)], using=using)
    assert [task for task, _ in kicked] == [kicks.DISPATCH]

    assert lanes_of(follow(kicked)) == {job.lane for job in jobs}


@pytest.mark.usefixtures("_only_here")
def test_the_kicks_for_many_lanes_do_not_depend_on_where_sweeps_stopped(
    using: str, kicked: Kicks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kicks, "MOST_LANES", 10)
    AtomicJob.enqueue_many([AtomicJob(shop=str(at)) for at in range(8)], using=using)
    LaneJob.rows(using).bulk_create([LaneJob(number=at) for at in range(12)])
    for queue in (AtomicJob, LaneJob):
        sweep.kick_waiting(queue, using)  # each stops in the middle of its lanes
    kicked.clear()

    jobs = LaneJob.enqueue_many([LaneJob(number=at) for at in range(12)], using=using)

    assert lanes_of(follow(kicked)) == {job.lane for job in jobs}


def follow(kicked: Kicks) -> Kicks:
    """Run the sweeps that were asked for, and those that they ask for; return the other kicks."""
    others: Kicks = []
    for _ in range(20):
        batch, kicked[:] = list(kicked), []
        others += [kick for kick in batch if kick[0] != kicks.DISPATCH]
        for task, about in batch:
            if task == kicks.DISPATCH:
                tasks.dispatch_jobs(**about)
        if not kicked:
            return others
    raise AssertionError("one sweep asks for the next without end")


# Rows that only a sweep can find


@pytest.mark.usefixtures("_only_here")
def test_a_deferred_job_behind_one_that_is_not_due_is_found(using: str, kicked: Kicks) -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    FifoJob.rows(using).bulk_create([FifoJob(run_after=tomorrow), FifoJob(status="DEFERRED")])
    lane = FifoJob.rows(using)[0].lane

    assert sweep.kick_waiting(FifoJob, using) == 1

    assert lanes_of(kicked) == {lane}
    run_lanes(FifoJob, using, [lane], Budget.endless())
    assert statuses(FifoJob, using) == ["NEW", "PROCESSED"]


@pytest.mark.usefixtures("_only_here")
def test_jobs_without_a_lane_get_theirs_from_a_sweep(using: str, kicked: Kicks) -> None:
    shops = [LaneJob(shop=shop) for shop in "aba"]
    lanes = [job.lane for job in LaneJob.enqueue_many(shops, using=using)]
    LaneJob.rows(using).update(lane=None)  # the queue was independent when they were inserted
    kicked.clear()

    sweep.sweep_all(force=True)

    assert list(LaneJob.rows(using).order_by("id").values_list("lane", flat=True)) == lanes
    assert lanes_of(kicked) == set(lanes)


# Databases that only `using=` or a router names


def another_database() -> str:
    servers.require("postgresql")
    return "postgresql"


@EVERYWHERE
def test_jobs_in_a_database_that_only_using_names_are_kicked_and_rescued(kicked: Kicks) -> None:
    other = another_database()
    waiting = FifoJob.enqueue(using=other)
    LaneJob.enqueue(using=other)
    LaneJob.rows(other).get().claim()
    LaneJob.rows(other).update(lease_until=timezone.now() - timedelta(minutes=5))
    kicked.clear()

    sweep.sweep_all(force=True)

    found = [about for _, about in kicked if waiting.lane in about.get("lanes", [])]
    assert [about["using"] for about in found] == [other]
    assert LaneJob.rows(other).get().status == "NEW"


@EVERYWHERE
def test_an_outbox_that_a_router_keeps_in_another_database_is_relayed_and_cleaned(
    kicked: Kicks, settings: Any
) -> None:
    other, published = another_database(), []
    settings.DATABASE_ROUTERS = [WritesTo(other, "jaiminho_celery")]
    settings.JAIMINHO_CONFIG = {"DELETE_AFTER_SEND": False}
    table = Event._meta.db_table

    @save_to_outbox_stream("other", "keep-order", name="tests.other_database")
    def publish(number: int) -> None:
        published.append(number)

    publish(1)
    lane = Event.rows(other).get().lane
    kicked.clear()
    _rename("default", table, "not_here")
    try:
        relay.sweep_all(event_dispatch.nudge_budget(), force=True)
        assert [about["lanes"] for _, about in kicked if about.get("using") == other] == [[lane]]
        event_dispatch.relay_lanes(other, [lane], Budget.endless())
        Event.rows(other).update(sent_at=timezone.now() - timedelta(days=99))
        assert event_cleanup.clean_all() == 1
    finally:
        _rename("default", "not_here", table)
    assert published == [1]


@EVERYWHERE
@pytest.mark.parametrize("by", ["the sweep", "the command"])
def test_an_outbox_database_without_the_table_does_not_keep_the_relay_from_the_others(
    kicked: Kicks, settings: Any, by: str
) -> None:
    other = another_database()
    settings.JAIMINHO_CONFIG = {"DATABASES": ["default", other]}
    published: list[int] = []

    @save_to_outbox(using=other, name="tests.other_pool")
    def publish(number: int) -> None:
        published.append(number)

    with pytest.MonkeyPatch.context() as patch:  # its hook dies
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        publish(1)
    Event.rows(other).update(lease_until=timezone.now() - timedelta(minutes=5))
    _rename("default", Event._meta.db_table, "not_here")
    try:
        if by == "the sweep":
            relay.sweep_all(event_dispatch.nudge_budget(), force=True)
        else:
            with pytest.raises(CommandError, match="default could not be read"):
                call_command("events_relay")
    finally:
        _rename("default", "not_here", Event._meta.db_table)
    assert published == [1]


# A writer that keeps its lane open


@CONCURRENT
def test_the_retries_for_a_lane_that_a_writer_keeps_open_come_to_an_end(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barriers, "PATIENCE_SECONDS", 0.02)
    published: list[int] = []

    @save_to_outbox_stream("ordered", "keep-order", using=using, name="tests.open_writer")
    def publish(number: int) -> None:
        published.append(number)

    app = Celery("chain", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = f"chain-{using}"
    monkeypatch.setattr("parviraptor_celery.broker.this_app", lambda: app)  # of the writer too
    with open_transaction(using, lambda: publish(1)) as writer:
        publish(2)
        tries = 0
        while nudges := messages(app):
            assert len(nudges) == 1, "one chain, not several"
            tries += 1
            assert tries < 50, "the chain of retries has no end"
            deliver(app, nudges[0])
        assert published == []

        writer.committed()
        for nudge in messages(app):  # that of the writer's own commit
            deliver(app, nudge)
    assert published == [1, 2]
    assert 1 < tries <= event_tasks.WRITER_RETRIES + 1


def deliver(app: Celery, message: Any) -> None:
    """Run the task of a message as a worker would, retries included."""
    task = app.tasks[message.headers["task"]]
    about = message.payload[1]
    task.push_request(
        id=message.headers["id"],
        args=(),
        kwargs=about,
        retries=message.headers["retries"],
        called_directly=False,
        is_eager=False,
        delivery_info={},
        headers={},
    )
    try:
        task.run(**about)
    except Retry:
        pass
    finally:
        task.pop_request()


def lanes_of(kicked: Kicks) -> set[str]:
    return {lane for _, about in kicked for lane in about.get("lanes") or ()}


def statuses(queue: Any, using: str) -> list[str]:
    return list(queue.rows(using).order_by("id").values_list("status", flat=True))
