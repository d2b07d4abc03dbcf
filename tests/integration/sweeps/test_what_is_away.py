"""One table that is away, events that kill their worker, a writer that keeps its lane open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry
from django.db.models import F
from django.utils import timezone

from jaiminho_celery import barriers
from jaiminho_celery import sweep as relay
from jaiminho_celery import tasks as event_tasks
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery import cleanup, sweep
from parviraptor_celery.drains import Budget
from tests.integration.sweeps.common import Kicks, lanes_of, rename
from tests.integration.threads import open_transaction
from tests.testapp.models import AtomicJob, FifoJob, LaneJob
from tests.unit.conftest import messages

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)


class Killed(BaseException):
    """The process is killed here: nothing of the product may catch this."""


@pytest.fixture
def _without_a_table(using: str, _only_here: None) -> Iterator[None]:
    """AtomicJob, which comes before the others, has no table yet: a deploy is under way."""
    table = AtomicJob._meta.db_table
    rename(using, table, "not_yet")
    yield
    rename(using, "not_yet", table)


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
    monkeypatch.setattr("jaiminho_celery.backoff.full_jitter", lambda *_, **__: minute)

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
