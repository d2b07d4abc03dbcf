"""Who asks the relay to come again for events without order that failed, and for when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Retry

from jaiminho_celery import kicks
from jaiminho_celery.models import Event
from parviraptor_celery import broker
from tests.unit.events import let_be_due, statuses

pytestmark = pytest.mark.django_db(transaction=True)

RELAY = "jaiminho_celery.relay_events"


class Asked:
    """Notes what is asked of the relay, and for when; the broker may be away."""

    def __init__(self) -> None:
        self.kicks: list[tuple[float | None, dict[str, Any]]] = []
        self.broker_is_there = True

    def kick(self, task: str, *, countdown: float | None = None, **kwargs: Any) -> bool:
        assert task == RELAY
        self.kicks.append((countdown, kwargs))
        return self.broker_is_there


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(kicks, "_asked_for", {})
    monkeypatch.setattr(broker, "kick", asked.kick)
    return asked


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the next failures wait for these seconds, in turn."""

    def choose(*seconds: float) -> None:
        chosen = iter(seconds)
        monkeypatch.setattr(
            "jaiminho_celery.backoff.full_jitter",
            lambda *_, **__: timedelta(seconds=next(chosen)),
        )

    return choose


@pytest.fixture
def relay(celery_in_memory: Celery) -> Callable[..., int]:
    """Run the relay's task as a worker would."""

    def run(**kwargs: Any) -> int:
        task: Any = celery_in_memory.tasks[RELAY]
        task.push_request(id="1", kwargs=kwargs, called_directly=False, is_eager=False, retries=0)
        try:
            return int(task.run(**kwargs))
        finally:
            task.pop_request()

    return run


def test_a_hook_that_failed_asks_for_the_time_its_event_is_due(
    outbox: Any, asked: Asked, pauses: Any
) -> None:
    pauses(7)
    outbox.errors["bare"] = ValueError("away")
    outbox.bare(1)
    assert asked.kicks == [(7, {"using": "default"})]


def test_many_failures_ask_once_and_an_earlier_one_again(
    outbox: Any, asked: Asked, pauses: Any
) -> None:
    pauses(7, 8, 100, 3, 5)
    outbox.errors["bare"] = ValueError("away")
    for number in range(5):
        outbox.bare(number)
    assert [countdown for countdown, _ in asked.kicks] == [7, 3]


def test_a_request_that_is_over_stands_for_no_other(
    outbox: Any, asked: Asked, pauses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses(7, 8)
    outbox.errors["bare"] = ValueError("away")
    outbox.bare(1)
    kicks._asked_for["default"] -= 10  # ten seconds later
    outbox.bare(2)
    assert [countdown for countdown, _ in asked.kicks] == [7, 8]


def test_a_request_that_never_reached_the_broker_stands_for_no_other(
    outbox: Any, asked: Asked, pauses: Any
) -> None:
    pauses(7, 8, 9)
    outbox.errors["bare"] = ValueError("away")
    asked.broker_is_there = False
    outbox.bare(1)
    asked.broker_is_there = True
    outbox.bare(2)
    outbox.bare(3)
    assert [countdown for countdown, _ in asked.kicks] == [7, 8]


def test_no_request_lies_at_the_broker_longer_than_it_keeps_messages(
    outbox: Any, asked: Asked, pauses: Any, settings: Any
) -> None:
    settings.PARVIRAPTOR_CONFIG = {"RETRY_COUNTDOWN_CAP_SECONDS": 60}
    pauses(500)
    outbox.errors["bare"] = ValueError("away")
    outbox.bare(1)
    assert asked.kicks == [(60, {"using": "default"})]


def test_a_sweep_whose_events_failed_asks_for_later(
    outbox: Any, asked: Asked, pauses: Any, relay: Any
) -> None:
    left_by_dead_hooks(outbox, 2)
    pauses(9, 4)
    outbox.errors["bare"] = ValueError("away")
    assert relay() == 2
    assert asked.kicks == [(4, {"using": "default"})]


def test_a_sweep_that_had_too_much_to_do_asks_for_more_at_once_and_for_what_failed(
    outbox: Any, asked: Asked, pauses: Any, relay: Any, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"RELAY_ROWS": 1}
    left_by_dead_hooks(outbox, 3)
    pauses(4)
    outbox.errors["bare"] = ValueError("away")
    assert relay() == 1
    assert asked.kicks == [(None, {"using": "default"}), (4, {"using": "default"})]


@pytest.mark.parametrize("lanes", [{}, {"lanes": None}, {"lanes": []}], ids=str)
def test_a_nudge_without_lanes_relays_what_keeps_no_order(
    outbox: Any, asked: Asked, relay: Any, lanes: dict[str, Any]
) -> None:
    left_by_dead_hooks(outbox, 2)
    outbox.in_order("another's")
    asked.kicks.clear()
    assert relay(using="default", **lanes) == 2
    assert statuses() == ["SENT", "SENT", "WAITING"]
    assert asked.kicks == []


def test_a_nudge_whose_budget_is_spent_asks_for_another_of_the_same_database(
    outbox: Any, asked: Asked, relay: Any, settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"RELAY_ROWS": 2}
    left_by_dead_hooks(outbox, 5)
    tried = [relay(using="default")]
    while asked.kicks:
        countdown, arguments = asked.kicks.pop()
        assert (countdown, arguments) == (None, {"using": "default", "lanes": []})
        tried.append(relay(**arguments))
    assert sum(tried) == 5
    assert statuses() == ["SENT"] * 5


def test_a_nudge_whose_events_failed_comes_back_as_a_retry(
    outbox: Any, asked: Asked, pauses: Any, relay: Any
) -> None:
    left_by_dead_hooks(outbox, 2)
    pauses(9, 4)
    outbox.errors["bare"] = ValueError("away")
    with pytest.raises(Retry) as caught:
        relay(using="default")
    assert caught.value.when == 4
    assert caught.value.sig.kwargs == {"using": "default", "lanes": None}


def left_by_dead_hooks(outbox: Any, count: int) -> None:
    """Leave events as hooks do that died: now they are due."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaiminho_celery.hooks._publish_after_commit", lambda *_: None)
        for number in range(count):
            outbox.bare(number)
    let_be_due()
    assert Event.objects.filter(status="WAITING").count() == count
