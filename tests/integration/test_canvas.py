"""Canvas goes through the outbox of `OutboxCelery`: all of it after the commit, or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from django.db import transaction

from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.models import Event
from parviraptor_celery import broker
from tests.integration.test_celery_messages import drain_queue, make_app

Canvas = Callable[[Any], Any]

CANVAS: dict[str, Canvas] = {
    "group": lambda add: group(add.s(1, 1), add.s(2, 2)),
    "chord": lambda add: chord([add.s(1, 1), add.s(2, 2)], add.si(3, 3)),
    "group-in-chain": lambda add: chain(group(add.s(1, 1), add.s(2, 2)), add.si(3, 3)),
    "chain-of-groups": lambda add: chain(add.si(0, 0), group(add.si(1, 1), add.si(2, 2))),
    "group-of-chains": lambda add: group(chain(add.s(1, 1), add.s(2)), add.s(3, 3)),
    "chunks": lambda add: add.chunks([(1, 1), (2, 2)], 1),
    "starmap": lambda add: add.starmap([(1, 1), (2, 2)]),
}
every_canvas = pytest.mark.parametrize("canvas", CANVAS.values(), ids=list(CANVAS))

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("_fresh_broker"),
]


@pytest.fixture
def _fresh_broker() -> None:
    broker.close_breaker()


@every_canvas
def test_what_is_sent_after_the_commit_is_what_celery_itself_sends(
    broker_url: str, queue_name: str, canvas: Canvas
) -> None:
    direct = application(Celery, broker_url, queue_name)
    canvas(direct.tasks["wire.add"]).apply_async()
    expected = on_the_wire(broker_url, queue_name)

    app = application(OutboxCelery, broker_url, queue_name)
    with transaction.atomic():
        result = canvas(app.tasks["wire.add"]).apply_async()
        assert on_the_wire(broker_url, queue_name) == []
        assert Event.objects.exists()

    assert on_the_wire(broker_url, queue_name) == expected
    assert expected
    assert result.id
    assert not Event.objects.exists()


@every_canvas
def test_nothing_is_sent_of_a_transaction_that_was_rolled_back(
    broker_url: str, queue_name: str, canvas: Canvas
) -> None:
    app = application(OutboxCelery, broker_url, queue_name)
    with pytest.raises(ValueError, match="undo"), transaction.atomic():
        canvas(app.tasks["wire.add"]).apply_async()
        assert Event.objects.exists()
        raise ValueError("undo")

    assert on_the_wire(broker_url, queue_name) == []
    assert not Event.objects.exists()


def test_the_tasks_of_a_group_carry_the_ids_of_its_result(broker_url: str, queue_name: str) -> None:
    app = application(OutboxCelery, broker_url, queue_name)
    add = app.tasks["wire.add"]
    with transaction.atomic():
        result = group(add.s(1, 1), add.s(2, 2)).apply_async()

    headers = [headers for _, headers, _ in drain_queue(broker_url, queue_name)]
    assert {header["id"] for header in headers} == {child.id for child in result.children}
    assert {header["group"] for header in headers} == {result.id}


def test_a_producer_of_the_callers_own_still_bypasses_the_outbox(
    broker_url: str, queue_name: str
) -> None:
    app = application(OutboxCelery, broker_url, queue_name)
    with pytest.raises(ValueError, match="undo"), transaction.atomic():
        with app.connection_for_write() as connection:
            producer = app.amqp.Producer(connection)
            app.tasks["wire.add"].apply_async((1, 1), producer=producer)
        assert not Event.objects.exists()
        raise ValueError("undo")
    assert len(drain_queue(broker_url, queue_name)) == 1


def application(kind: type[Celery], url: str, queue: str) -> Any:
    """Return an application whose queue exists and that can hold the results of a chord."""
    app = make_app(kind, url, queue)
    app.conf.result_backend = "cache+memory://"
    with app.connection_for_write() as connection:
        app.amqp.queues[queue](connection.default_channel).declare()
    return app


def on_the_wire(url: str, queue: str) -> list[Any]:
    """Return what a worker would find, in order, without the ids; deletes the queue."""
    found = []
    for body, headers, _ in drain_queue(url, queue):
        args, kwargs, embed = json.loads(body)
        followers = {name: _names(embed[name]) for name in ("chain", "callbacks", "chord")}
        has_group = headers["group"] is not None
        found.append((headers["task"], args, kwargs, followers, has_group))
    return found


def _names(signatures: Any) -> list[Any]:
    """Return the tasks and arguments of the signatures that follow a task."""
    some = [signatures] if isinstance(signatures, dict) else signatures or []
    return [(one["task"], one["args"]) for one in some]
