"""What beat is given, and the tasks it names."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry
from django.utils import timezone

from jaiminho_celery.models import Event
from jaiminho_celery.schedule import beat_schedule
from parviraptor_celery.schedule import beat_schedule as of_the_queues
from tests.unit.events import let_be_due, statuses

Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]


@pytest.fixture
def run_task(celery_in_memory: Celery) -> Callable[..., Any]:
    """Run a task as a worker would, not eagerly."""

    def run(name: str, **kwargs: Any) -> Any:
        task = celery_in_memory.tasks[f"jaiminho_celery.{name}"]
        task.push_request(id="1", kwargs=kwargs, called_directly=False, is_eager=False, retries=0)
        try:
            return task.run(**kwargs)
        finally:
            task.pop_request()

    return run


def test_names_tasks_that_exist(celery_in_memory: Celery) -> None:
    names = {entry["task"] for entry in beat_schedule().values()}
    assert names == {"jaiminho_celery.relay_events", "jaiminho_celery.clean_events"}
    assert names <= set(celery_in_memory.tasks)


def test_keeps_the_intervals_of_the_settings(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"RELAY_INTERVAL_SECONDS": 7, "CLEAN_INTERVAL_SECONDS": 8}
    schedule = {entry["task"]: entry["schedule"] for entry in beat_schedule().values()}
    assert schedule == {"jaiminho_celery.relay_events": 7, "jaiminho_celery.clean_events": 8}


def test_does_not_clash_with_the_queues() -> None:
    assert not set(beat_schedule()) & set(of_the_queues())


@pytest.mark.django_db
class TestRelayEvents:
    def test_from_beat_publishes_what_has_no_order_and_nudges_the_rest(
        self, run_task: Any, outbox: Any, kicked: Kicked
    ) -> None:
        outbox.bare(1)
        outbox.in_order(2)
        let_be_due()
        assert run_task("relay_events") == 1
        assert outbox.calls == [("bare", (1,), {})]
        [(task, arguments)] = kicked()
        assert task == "jaiminho_celery.relay_events"
        assert run_task("relay_events", **arguments) == 1
        assert outbox.calls[1:] == [("in_order", (2,), {})]

    def test_from_a_beat_that_runs_twice_does_its_work_once(
        self, run_task: Any, outbox: Any, kicked: Kicked
    ) -> None:
        outbox.in_order(1)
        run_task("relay_events")
        run_task("relay_events")
        assert len(kicked()) == 1

    def test_rescues_what_a_dead_hook_left(self, run_task: Any, outbox: Any) -> None:
        outbox.bare(1)
        Event.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert run_task("relay_events") == 1
        assert statuses() == ["SENT"]

    def test_leaves_a_living_hook_alone(self, run_task: Any, outbox: Any) -> None:
        outbox.bare(1)
        assert run_task("relay_events") == 0
        assert outbox.calls == []

    def test_publishes_the_lanes_it_is_told(self, run_task: Any, outbox: Any) -> None:
        outbox.per_shop("a")
        outbox.per_shop("b")
        lane = Event.objects.get(key="b").lane
        assert run_task("relay_events", using="default", lanes=[lane]) == 1
        assert [args for _, args, _ in outbox.calls] == [("b",)]

    def test_shows_as_retry_when_it_put_an_event_back_and_others_went_on(
        self, run_task: Any, outbox: Any
    ) -> None:
        outbox.errors["in_order"] = ValueError("away")
        outbox.in_order(1)
        outbox.per_shop("a")
        lanes = list(Event.objects.order_by("id").values_list("lane", flat=True))
        with pytest.raises(Retry):
            run_task("relay_events", using="default", lanes=lanes)
        assert ("per_shop", ("a",), {}) in outbox.calls
        assert statuses() == ["WAITING", "SENT"]

    def test_makes_room_after_its_share(
        self, run_task: Any, outbox: Any, settings: Any, kicked: Kicked
    ) -> None:
        settings.JAIMINHO_CONFIG = {"RELAY_ROWS": 3}
        for shop in "aabb":
            outbox.per_shop(shop)
        lanes = list(dict.fromkeys(Event.objects.order_by("id").values_list("lane", flat=True)))
        assert run_task("relay_events", using="default", lanes=lanes) == 3
        [(_, arguments)] = kicked()
        assert run_task("relay_events", **arguments) == 1
        assert statuses() == ["SENT"] * 4

    def test_makes_room_after_its_share_of_what_has_no_order(
        self, run_task: Any, outbox: Any, settings: Any, kicked: Kicked
    ) -> None:
        settings.JAIMINHO_CONFIG = {"RELAY_ROWS": 3}
        for _ in range(5):
            outbox.bare(1)
        let_be_due()
        assert run_task("relay_events") == 3
        [(_, arguments)] = kicked()
        assert run_task("relay_events", **arguments) == 2


@pytest.mark.django_db
def test_clean_events_deletes_what_is_too_old(run_task: Any) -> None:
    old = timezone.now() - timedelta(days=15)
    Event.objects.create(version=1, status="SENT", sent_at=old)
    assert run_task("clean_events") == 1
