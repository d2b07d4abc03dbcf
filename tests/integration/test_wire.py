"""Whatever Celery would have put on the wire, `OutboxCelery` puts on the wire: a differential test.

Hypothesis makes up calls and canvas. Each is sent twice: by Celery itself and through the outbox.
Ids are counted and the clock of the application stands still, so nothing has to be left out of
the comparison but the delivery tag; of a time to live, what is left of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import hypothesis
import pytest
from celery import chain, chord, group
from hypothesis import strategies as st

from jaiminho_celery.models import Event
from parviraptor_celery import broker as library_broker
from tests import servers
from tests.integration.wire import (
    KEY_PREFIX,
    LATER,
    NOW,
    Broker,
    acting,
    assert_equal_on_the_wire,
    pair,
)
from tests.unit.events import let_be_due, relay

Send = Callable[[Any], Any]

pytestmark = pytest.mark.django_db(transaction=True)

few = hypothesis.settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _nothing_is_parked(settings: Any) -> None:
    settings.JAIMINHO_CONFIG = {"PARK_BEYOND_SECONDS": None}


@pytest.fixture(params=["redis", "redis-with-a-key-prefix", "rabbitmq"])
def at(request: pytest.FixtureRequest, queue_name: str) -> Iterator[Broker]:
    kind, _, prefixed = request.param.partition("-")
    place = Broker(servers.require(kind), queue_name, key_prefix=KEY_PREFIX if prefixed else "")
    yield place
    place.close()
    library_broker.close_breaker()


def by_the_hook(app: Any, send: Send) -> None:
    send(app)


def by_the_relay(app: Any, send: Send) -> None:
    """Have the broker away at the commit; it is back for the relay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library_broker, "use", _away)
        send(app)
    let_be_due()
    relay()


def _away(*_: Any, **__: Any) -> Any:
    raise library_broker.BrokerAway("as the test wants it")


both_ways = pytest.mark.parametrize("publish", [by_the_hook, by_the_relay])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.sampled_from(["tenant", "trace", "x-y"])
numbers = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars | st.datetimes() | st.uuids() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
moments = st.timedeltas(timedelta(minutes=5), LATER).map(lambda later: NOW + later)
seconds = st.integers(300, 4000) | st.floats(300, 4000)
ids = st.uuids().map(str)
destinations = st.sampled_from(
    [
        {"queue": "{name}"},
        {"queue": "{name}-named"},
        {"queue": "{name}-topic", "routing_key": "some.thing"},
        {"queue": "{name}-fanout"},
        {"exchange": "{name}-topic", "routing_key": "some.thing.else"},
        {"routing_key": "{name}"},
        {"queue": "{name}-named", "exchange": "{name}-direct", "routing_key": "named"},
    ]
)
formats = st.sampled_from(
    [
        {"serializer": "json"},
        {"serializer": "pickle"},
        {"compression": "gzip"},
        {"serializer": "pickle", "compression": "bzip2"},
        {"compression": "zlib"},
    ]
)
followers = st.builds(
    lambda task, args, immutable: (task, args, immutable),
    st.sampled_from(["wire.add", "wire.drop"]),
    st.lists(scalars, max_size=2),
    st.booleans(),
)
stamps = st.dictionaries(names, texts | st.lists(texts, max_size=2), max_size=2).map(
    lambda given: {**given, "stamped_headers": sorted(given)} if given else {}
)
options = st.fixed_dictionaries(
    {},
    optional={
        "countdown": seconds,
        "eta": moments,
        "expires": seconds | moments | moments.map(lambda moment: moment.isoformat()),
        "priority": st.integers(0, 9),
        "headers": st.dictionaries(names, scalars, max_size=2),
        "time_limit": st.integers(1, 100),
        "soft_time_limit": st.integers(1, 100),
        "shadow": texts,
        "ignore_result": st.booleans(),
        "root_id": ids,
        "parent_id": ids,
        "task_id": ids,
        "group_id": ids,
        "group_index": st.integers(0, 9),
        "argsrepr": texts,
        "kwargsrepr": texts,
        "retries": st.integers(0, 3),
        "replaced_task_nesting": st.integers(0, 3),
        "retry": st.booleans(),
        "retry_policy": st.just({"max_retries": 1}),
        "add_to_parent": st.booleans(),
        "delivery_mode": st.sampled_from([1, 2, "transient", "persistent"]),
        "reply_to": texts,
        "message_id": texts,
        "app_id": texts,
        "type": texts,
        "expiration": seconds,
        "timeout": st.integers(1, 5),
        "mandatory": st.booleans(),
        "link": followers | st.lists(followers, min_size=1, max_size=2),
        "link_error": followers,
        "chain": st.lists(followers, min_size=1, max_size=2),
        "chord": followers,
    },
)
calls = st.tuples(
    st.sampled_from(["wire.add", "wire.drop", "wire.unknown"]),
    st.lists(values, max_size=3),
    st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2),
    st.builds(
        lambda *parts: {key: value for part in parts for key, value in part.items()},
        options,
        destinations | st.just({}),
        formats | st.just({}),
        stamps,
    ),
)
requests = st.none() | st.fixed_dictionaries(
    {"id": ids, "root_id": ids, "delivery_info": st.just({"priority": 5})},
    optional={
        "parent_id": ids,
        "stamps": st.just({"tenant": "blue"}),
        "stamped_headers": st.just(["tenant"]),
        "group": ids,
        "headers": st.just({"trace": "inherited"}),
    },
)
FOLLOWING = ("link", "link_error", "chain", "chord")


@both_ways
def test_a_message_equals_the_one_that_celery_itself_sends(
    at: Broker, publish: Callable[..., None]
) -> None:
    apps = pair(at, task_inherit_parent_priority=True)

    @few
    @hypothesis.given(call=calls, request=requests)
    def check(call: Any, request: Any) -> None:
        task, args, kwargs, given = call
        given = {key: _of_this_test(value, at) for key, value in given.items()}

        def send(app: Any) -> None:
            ready = {
                key: _signatures(app, value) if key in FOLLOWING else value
                for key, value in given.items()
            }
            if task in app.tasks:
                app.tasks[task].apply_async(list(args), dict(kwargs), **ready)
            else:
                app.send_task(task, list(args), dict(kwargs), **ready)

        compare(at, apps, send, publish, request)

    check()


leaves = st.builds(
    lambda task, args, immutable, given, stamp: ("task", task, args, immutable, given, stamp),
    st.sampled_from(["wire.add", "wire.drop"]),
    st.lists(scalars, max_size=2),
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "countdown": seconds,
            "priority": st.integers(0, 9),
            "queue": st.just("{name}-named"),
            "serializer": st.just("json"),
            "headers": st.just({"trace": "abc"}),
            "expires": seconds,
        },
    ),
    st.none() | st.just({"tenant": "blue"}),
)
canvas = st.recursive(
    leaves | st.just(("chunks",)) | st.just(("starmap",)) | st.just(("map",)),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("chord"), st.lists(inner, min_size=1, max_size=2), leaves),
        st.tuples(st.sampled_from(["link", "link_error"]), inner, leaves),
        st.tuples(st.just("stamped"), inner),
    ),
    max_leaves=6,
)


@both_ways
def test_canvas_equals_what_celery_itself_sends(at: Broker, publish: Callable[..., None]) -> None:
    apps = pair(at)

    @few
    @hypothesis.given(shape=canvas, request=requests, given=options.filter(lambda o: len(o) < 3))
    def check(shape: Any, request: Any, given: dict[str, Any]) -> None:
        kept = {key: given[key] for key in ("countdown", "priority", "expires") if key in given}

        def send(app: Any) -> None:
            built(app, shape, at).apply_async(**kept)

        compare(at, apps, send, publish, request)

    check()


def compare(
    at: Broker, apps: tuple[Any, Any], send: Send, publish: Callable[..., None], request: Any
) -> None:
    """Send by both applications; what they raise has to be equal as well."""
    native, ours = apps
    with acting(native, request):
        refused = _error_of(lambda: send(native))
    expected = at.take()
    with acting(ours, request):
        refused_by_us = _error_of(lambda: publish(ours, send))
        assert not Event.objects.exclude(status=Event.Status.SENT).exists()
    Event.objects.all().delete()
    assert refused_by_us == refused
    assert refused or expected, "there has to be something to compare"
    assert_equal_on_the_wire(expected, at.take())


def built(app: Any, shape: Any, at: Broker) -> Any:
    """Return the canvas that ``shape``, plain data, describes."""
    kind, *parts = shape
    add = app.tasks["wire.add"]
    match kind:
        case "task":
            task, args, immutable, given, stamp = parts
            signature = app.tasks[task].signature(tuple(args), immutable=immutable)
            signature.set(**{key: _of_this_test(value, at) for key, value in given.items()})
            if stamp:
                signature.stamp(**stamp)
            return signature
        case "chunks":
            return add.chunks([(1, 1), (2, 2), (3, 3)], 2)
        case "starmap":
            return add.starmap([(1, 1), (2, 2)])
        case "map":
            return add.map([1, 2])
        case "chain" | "group":
            combine = chain if kind == "chain" else group
            return combine(*[built(app, part, at) for part in parts[0]], app=app)
        case "chord":
            header = [built(app, part, at) for part in parts[0]]
            return chord(header, built(app, parts[1], at), app=app)
        case "link" | "link_error":
            signature = built(app, parts[0], at)
            getattr(signature, kind)(built(app, parts[1], at))
            return signature
        case "stamped":
            signature = built(app, parts[0], at)
            signature.stamp(trace="stamped")
            return signature
    raise AssertionError(kind)


def _error_of(call: Callable[[], None]) -> Any:
    try:
        call()
    except AssertionError:
        raise
    except Exception as error:
        return type(error).__name__
    return None


def _signatures(app: Any, given: Any) -> Any:
    if isinstance(given, list):
        return [_signatures(app, one) for one in given]
    task, args, immutable = given
    return app.tasks[task].signature(tuple(args), immutable=immutable)


def _of_this_test(value: Any, at: Broker) -> Any:
    return value.replace("{name}", at.name) if isinstance(value, str) else value
