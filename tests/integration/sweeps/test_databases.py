"""Databases that only `using=` or a router names."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from jaiminho_celery import cleanup as event_cleanup
from jaiminho_celery import dispatch as event_dispatch
from jaiminho_celery import sweep as relay
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery import sweep
from parviraptor_celery.drains import Budget
from tests import servers
from tests.integration.sweeps.common import Kicks, WritesTo, rename
from tests.testapp.models import FifoJob, LaneJob

EVERYWHERE = pytest.mark.django_db(transaction=True, databases="__all__")


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
    rename("default", table, "not_here")
    try:
        relay.sweep_all(event_dispatch.nudge_budget(), force=True)
        assert [about["lanes"] for _, about in kicked if about.get("using") == other] == [[lane]]
        event_dispatch.relay_lanes(other, [lane], Budget.endless())
        Event.rows(other).update(sent_at=timezone.now() - timedelta(days=99))
        assert event_cleanup.clean_all() == 1
    finally:
        rename("default", "not_here", table)
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
    rename("default", Event._meta.db_table, "not_here")
    try:
        if by == "the sweep":
            relay.sweep_all(event_dispatch.nudge_budget(), force=True)
        else:
            with pytest.raises(CommandError, match="default could not be read"):
                call_command("events_relay")
    finally:
        rename("default", "not_here", Event._meta.db_table)
    assert published == [1]
