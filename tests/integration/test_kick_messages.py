"""A kick is on the wire what Celery would have sent, though most of it is kept from the first."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals

from jaiminho_celery.app import OutboxCelery
from parviraptor_celery import broker as library_broker
from parviraptor_celery import kick_messages
from tests import servers
from tests.integration.wire import (
    KEY_PREFIX,
    Broker,
    acting,
    application,
    assert_equal_on_the_wire,
)

KICK = "wire.kick"
LANES = ["0" * 32, "1" * 32]
KICKS: list[dict[str, Any]] = [
    {"queue": "shop.Export", "using": "default", "lanes": LANES[:1]},
    {"queue": "shop.Export", "using": "default"},
    {"queue": "shop.Import", "using": "other", "lanes": LANES},
    {"queue": "shop.Import", "using": "it's", "lanes": LANES},
    {"queue": "shop.Import", "using": 'more than "that"'},
    {"queue": "shop.Import", "using": "back\\slash"},
    {"queue": "shop.Import", "using": "übrig", "lanes": LANES * 20},
    {"queue": "shop.Export", "using": "default", "lanes": LANES[1:]},
]


class Cancelled(Celery):
    """An app with a way of sending of its own, which is not known to do what Celery does."""

    def send_task(self, *args: Any, **options: Any) -> Any:
        return super().send_task(*args, **{**options, "headers": {"tenant": "graz"}})


@pytest.fixture(params=["redis", "redis-with-a-key-prefix", "rabbitmq"])
def at(request: pytest.FixtureRequest, queue_name: str) -> Iterator[Broker]:
    kind, _, prefixed = request.param.partition("-")
    place = Broker(servers.require(kind), queue_name, key_prefix=KEY_PREFIX if prefixed else "")
    yield place
    place.close()
    library_broker.close_breaker()


@pytest.fixture
def made_by_celery(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kicks that Celery was asked to make."""
    made: list[str] = []
    by_celery = kick_messages._by_celery

    def noting(app: Any, producer: Any, task: str, *rest: Any) -> None:
        made.append(task)
        by_celery(app, producer, task, *rest)

    monkeypatch.setattr(kick_messages, "_by_celery", noting)
    return made


def natively(app: Any, kicks: list[dict[str, Any]], **about: Any) -> None:
    with acting(app, **about), app.connection_for_write() as connection:
        for kwargs in kicks:
            producer = app.amqp.Producer(connection, auto_declare=False)
            app.send_task(KICK, kwargs=kwargs, producer=producer, retry=False, ignore_result=True)


def by_us(app: Any, kicks: list[dict[str, Any]], **about: Any) -> None:
    with acting(app, **about):
        for kwargs in kicks:
            assert library_broker.kick(KICK, **kwargs)


def taken(at: Broker, count: int) -> dict[str, list[Any]]:
    """Await so many messages: kicks are not confirmed."""
    found, deadline = defaultdict[str, list[Any]](list), time.monotonic() + 10
    while sum(map(len, found.values())) < count:
        assert time.monotonic() < deadline, found
        for place, messages in at.take().items():
            found[place] += messages
    return dict(found)


def assert_alike(at: Broker, app: Any, kicks: list[dict[str, Any]], **about: Any) -> None:
    natively(app, kicks, **about)
    native = taken(at, len(kicks))
    by_us(app, kicks, **about)
    assert_equal_on_the_wire(native, taken(at, len(kicks)))


def with_task(app: Any, **options: Any) -> Any:
    @app.task(name=KICK, shared=False, typing=False, ignore_result=True, **options)
    def process(**_: Any) -> None: ...

    return app


@pytest.mark.parametrize("kind", [Celery, OutboxCelery])
def test_kicks_are_what_celery_would_send(at: Broker, kind: Any, made_by_celery: list[str]) -> None:
    assert_alike(at, with_task(application(kind, at)), KICKS)
    # The first, and those whose arguments Celery may describe in another way than Python.
    assert len(made_by_celery) == 5


@pytest.mark.filterwarnings("ignore::celery.exceptions.CDeprecationWarning")
@pytest.mark.parametrize(
    ("conf", "options"),
    [
        ({"task_routes": {KICK: {"queue": "{name}-named", "priority": 3}}}, {}),
        ({"task_routes": [{"wire.k*": "{name}-topic"}]}, {}),
        ({"task_routes": [{"wire.k*": {"queue": "{name}-fanout"}}]}, {}),
        ({"task_default_priority": 7, "task_compression": "gzip"}, {}),
        ({"task_serializer": "pickle", "task_default_delivery_mode": 1}, {}),
        ({"task_time_limit": 30}, {"time_limit": 60, "soft_time_limit": 50, "priority": 2}),
        ({"task_annotations": {KICK: {"priority": 5}}}, {"queue": "{name}-named"}),
    ],
)
def test_routes_and_options_of_the_task_hold_for_each_kick(
    at: Broker, conf: dict[str, Any], options: dict[str, Any], made_by_celery: list[str]
) -> None:
    app = application(Celery, at, **_named(conf, at.name))
    assert_alike(at, with_task(app, **_named(options, at.name)), KICKS[:3])
    assert len(made_by_celery) == 1


def _by_the_lanes(name: str, args: Any, kwargs: Any, options: Any, **_: Any) -> Any:
    return {"priority": len(kwargs.get("lanes") or ())}


@pytest.mark.parametrize(
    "conf",
    [
        {"task_routes": (_by_the_lanes,)},
        {"task_protocol": 1},
        {"task_send_sent_event": True},
    ],
    ids=lambda conf: next(iter(conf)),
)
def test_what_may_differ_each_time_is_left_to_celery(
    at: Broker, conf: dict[str, Any], made_by_celery: list[str]
) -> None:
    app = with_task(application(Celery, at, **conf))
    if "task_send_sent_event" in conf:
        by_us(app, KICKS[:3])  # an event tells the moment, so no two are equal
    else:
        assert_alike(at, app, KICKS[:3])
    assert len(made_by_celery) == 3


def test_a_kick_that_expires_is_left_to_celery(at: Broker, made_by_celery: list[str]) -> None:
    assert_alike(at, with_task(application(Celery, at), expires=60), KICKS[:3])
    assert len(made_by_celery) == 3


def test_an_app_that_sends_in_its_own_way_sends_kicks_like_that(
    at: Broker, made_by_celery: list[str]
) -> None:
    assert_alike(at, with_task(application(Cancelled, at)), KICKS[:3])
    assert len(made_by_celery) == 3


def test_within_a_task_the_task_is_the_parent(at: Broker, made_by_celery: list[str]) -> None:
    app, task = with_task(application(Celery, at)), {"id": "a", "root_id": "b"}
    by_us(app, KICKS[:2])
    taken(at, 2)
    assert_alike(at, app, KICKS[:3], request=task)
    assert len(made_by_celery) == 1 + 3


@pytest.mark.parametrize("signal", [signals.before_task_publish, signals.after_task_publish])
def test_receivers_of_celerys_signals_see_each_kick(at: Broker, signal: Any) -> None:
    app, seen = with_task(application(Celery, at)), list[str]()

    def see(headers: dict[str, Any], **_: Any) -> None:
        seen.append(headers["id"])
        headers["seen"] = len(seen)

    by_us(app, KICKS[:2])
    signal.connect(see)
    try:
        by_us(app, KICKS[:3])
    finally:
        signal.disconnect(see)
    by_us(app, KICKS[:1])
    assert len(seen) == 3
    [messages] = taken(at, 6).values()
    numbers = [message["headers"].get("seen") for message in messages]
    expected = [1, 2, 3] if signal is signals.before_task_publish else []
    assert sorted(filter(None, numbers)) == expected


def test_other_routes_hold_from_the_next_kick_on(at: Broker) -> None:
    app = with_task(application(Celery, at))
    by_us(app, KICKS[:2])
    assert [place.removeprefix(at.key_prefix) for place in taken(at, 2)] == [at.name]
    app.conf.task_routes = {KICK: f"{at.name}-named"}
    app.amqp.flush_routes()
    app.amqp.router = app.amqp.Router()
    by_us(app, KICKS[:2])
    assert [place.removeprefix(at.key_prefix) for place in taken(at, 2)] == [f"{at.name}-named"]


def test_a_queue_is_declared_anew_after_the_connection_was(at: Broker) -> None:
    app = with_task(application(Celery, at))
    by_us(app, KICKS[:2])
    taken(at, 2)
    at.queues[0](at.connection.default_channel).delete()
    with library_broker._pool(app).acquire() as connection:
        connection.collect()
    by_us(app, KICKS[1:3])
    [messages] = taken(at, 2).values()
    assert len(messages) == 2


def _named(value: Any, name: str) -> Any:
    """Fill in the name of the test's queues."""
    match value:
        case str():
            return value.replace("{name}", name)
        case dict():
            return {key: _named(each, name) for key, each in value.items()}
        case list():
            return [_named(each, name) for each in value]
    return value
