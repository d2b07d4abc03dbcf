"""Payload bombs: a named error at the call, or a dead letter in the relay, at a bounded cost."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from decimal import Decimal
from json import JSONEncoder
from typing import Any

import kombu.compression
import pytest
from celery import Celery
from django.core.serializers.json import DjangoJSONEncoder
from kombu import Queue

from jaiminho_celery import serialization
from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.exceptions import NotSerializable, PayloadTooLarge, UnreadableEvent
from jaiminho_celery.models import Event
from jaiminho_celery.serialization import DEEPEST, ENVELOPE, VERSION, decode_call, encode_call
from jaiminho_celery.signing import sign
from tests.faults.canaries import PAYLOAD, listening
from tests.unit.events import let_be_due, only, relay, statuses

LIMIT = 10_000
MOST_VISITS = serialization.MOST_OF_A_KEY * serialization.SURELY_TOO_LARGE + 1


def nested(levels: int, make: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    value: Any = PAYLOAD
    for _ in range(levels):
        value = make(value)
    return value


def doubled(levels: int) -> Any:
    """Return a list that is small in memory, and 2 to the power of ``levels`` long as JSON."""
    return nested(levels, lambda inner: [inner, inner])


class Endless(JSONEncoder):
    """Makes of one thing two more."""

    def default(self, o: Any) -> Any:
        return [object(), object()]


BOMBS: dict[str, tuple[Any, type[Exception]]] = {
    "deeper than allowed": (nested(DEEPEST + 2), NotSerializable),
    "deeper than the stack": (nested(100_000), NotSerializable),
    "deep dictionaries": (nested(100_000, lambda inner: {"a": inner}), NotSerializable),
    "deep keys": (nested(500, lambda inner: (inner,)), NotSerializable),
    "a list doubled": (doubled(90), PayloadTooLarge),
    "a dictionary doubled": (nested(90, lambda it: {"a": it, "b": it}), PayloadTooLarge),
    "an envelope doubled": (nested(90, lambda it: {1: it, ENVELOPE: it}), PayloadTooLarge),
    "one text a thousand times": ([PAYLOAD * 100] * 1000, PayloadTooLarge),
    "one key a thousand times": ([{"k" * 1000: 1}] * 1000, PayloadTooLarge),
    "bytes": (b"\0" * LIMIT, PayloadTooLarge),
    "many keys": (dict.fromkeys(range(LIMIT)), PayloadTooLarge),
    "a long int": (10**5000, NotSerializable),
    "a long int as a key": ({10**5000: 1}, NotSerializable),
    "nan": (float("nan"), NotSerializable),
    "nan as a key": ({float("nan"): 1}, NotSerializable),
}


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how many values the encoder looks at."""
    seen = [0]
    look = serialization._Encoder.__call__

    def counted(*args: Any) -> Any:
        seen[0] += 1
        assert seen[0] <= MOST_VISITS, "nothing would end this"
        return look(*args)

    monkeypatch.setattr(serialization._Encoder, "__call__", counted)
    return seen


class TestAtTheCall:
    @pytest.mark.parametrize("name", BOMBS)
    def test_a_bomb_is_refused_by_name_at_a_bounded_cost(
        self, name: str, visits: list[int]
    ) -> None:
        bomb, error = BOMBS[name]
        for args, kwargs in (((bomb,), {}), ((), {"named": bomb})):
            visits[0] = 0
            with pytest.raises(error) as caught:
                encode_call(args, kwargs, DjangoJSONEncoder, LIMIT)
            assert visits[0] <= LIMIT * serialization.SURELY_TOO_LARGE
            assert len(str(caught.value)) < 2000
            assert PAYLOAD not in str(caught.value)

    def test_an_encoder_that_makes_ever_more_comes_to_an_end(self, visits: list[int]) -> None:
        with pytest.raises((NotSerializable, PayloadTooLarge)):
            encode_call((object(),), {}, Endless, LIMIT)
        assert visits[0] <= LIMIT * serialization.SURELY_TOO_LARGE

    def test_a_key_of_an_order_is_bounded_too(self, visits: list[int]) -> None:
        with pytest.raises(PayloadTooLarge):
            serialization.encode_key(doubled(90))
        assert visits[0] <= serialization.MOST_OF_A_KEY * serialization.SURELY_TOO_LARGE

    def test_the_way_to_a_value_is_put_together_only_when_it_is_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key of 100 kB with 10,000 values under it is 1 GB of ways to them."""
        asked: list[Any] = []
        monkeypatch.setattr(serialization, "_place", lambda path: asked.append(path) or "here")
        encode_call(({"k" * 100_000: [1] * 10_000},), {}, DjangoJSONEncoder, 10**6)
        assert asked == []
        with pytest.raises(NotSerializable, match=r"^here: "):
            encode_call(({"k" * 100_000: [1, object()]},), {}, DjangoJSONEncoder, 10**6)
        assert len(asked) == 1

    def test_a_long_key_on_the_way_is_shortened(self) -> None:
        with pytest.raises(NotSerializable) as caught:
            encode_call(({"k" * 100_000: object()},), {}, DjangoJSONEncoder, 10**6)
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("more", [-1, 0, 1])
    def test_the_limit_is_exact(self, more: int) -> None:
        frame = len(encode_call(("",), {}, DjangoJSONEncoder, LIMIT))
        text = "x" * (LIMIT - frame + more)
        if more > 0:
            with pytest.raises(PayloadTooLarge, match=f"take {LIMIT + 1} bytes"):
                encode_call((text,), {}, DjangoJSONEncoder, LIMIT)
        else:
            assert len(encode_call((text,), {}, DjangoJSONEncoder, LIMIT)) == LIMIT + more

    @pytest.mark.parametrize(
        "value",
        [
            Decimal("1e1000000"),
            Decimal("NaN"),
            Decimal("-Infinity"),
            Decimal("sNaN"),
            "\0",
            "\ud800",
            "\U0001f600",
            10**3900,
            -(2**64),
            5e-324,
            nested(DEEPEST - 5),
            {"__type__": "datetime", "__value__": "x"},
            {"__proto__": {"constructor": 1}},
            {ENVELOPE: ["decimal", "1"]},
            {ENVELOPE: {ENVELOPE: [ENVELOPE]}},
            {"": {"": {"": ""}}},
            {None: {True: {1.5: {(1, 2): b"\xff"}}}},
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_what_only_looks_like_a_bomb_comes_back_equal(self, value: Any) -> None:
        body = encode_call((value,), {"named": value}, DjangoJSONEncoder, LIMIT)
        args, kwargs = decode_call(body, VERSION)
        assert repr(args) == repr([value])
        assert repr(kwargs) == repr({"named": value})


def body_of(*args: Any) -> str:
    return json.dumps({"args": args, "kwargs": {}})


BODIES = {
    "nothing": "",
    "half": '{"args": [',
    "deep lists": '{"args": ' + "[" * 100_000,
    "deep and closed": '{"args": ' + "[" * 50_000 + "]" * 50_000 + ', "kwargs": {}}',
    "deep dictionaries": '{"args":' * 50_000,
    "deep envelopes": '{"args":[' + f'{{"{ENVELOPE}":["dict",[[' * 20_000,
    "a long int": '{"args": [' + "9" * 5000 + '], "kwargs": {}}',
    "a decimal that is none": body_of({ENVELOPE: ["decimal", "1e1e1"]}),
    "a moment out of range": body_of({ENVELOPE: ["datetime", "10000-01-01T00:00:00"]}),
    "an unknown kind": body_of({ENVELOPE: ["__import__", "os"]}),
    "a kind that is no text": body_of({ENVELOPE: [{"a": 1}, 1]}),
    "more than a kind": body_of({ENVELOPE: ["decimal", "1", "2"]}),
    "text for pairs": body_of({ENVELOPE: ["dict", "ab"]}),
    "keys that can't be": body_of({ENVELOPE: ["dict", [[{"a": 1}, 1]]]}),
    "deep keys": '{"kwargs": {}, "args": [{"'
    + ENVELOPE
    + '": ["dict", [['
    + "[" * 5000
    + "]" * 5000
    + ", 1]]]}]}",
    "other things": json.dumps({"args": [1], "kwargs": {}, "version": 2})[:-1],
    "keyword arguments that are a list": json.dumps({"args": [], "kwargs": ["a"]}),
}
"""What ``encode_call`` never writes."""


def rewrite(event: Event, **columns: Any) -> None:
    """Change a row as somebody who has the key would: its signature is in order."""
    for name, value in columns.items():
        setattr(event, name, value)
    Event.objects.filter(pk=event.pk).update(**columns, signature=sign(event))


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_a_bomb_is_unreadable(name: str) -> None:
    with pytest.raises(UnreadableEvent) as caught:
        decode_call(BODIES[name], VERSION)
    assert len(str(caught.value)) < 200


@pytest.mark.django_db
class TestInTheRelay:
    def test_every_signed_bomb_becomes_a_dead_letter_and_the_others_go_out(
        self, outbox: Any
    ) -> None:
        for body in BODIES.values():
            outbox.bare()
            rewrite(Event.objects.latest("id"), body=body)
        outbox.bare("the last one")
        let_be_due()
        with listening() as lines:
            relay()
        assert statuses() == ["DEAD"] * len(BODIES) + ["SENT"]
        assert [args for _, args, _ in outbox.calls] == [("the last one",)]
        assert max(map(len, lines)) < 1000

    @pytest.mark.parametrize("name", BODIES)
    def test_a_bomb_holds_its_own_lane_and_no_other(self, outbox: Any, name: str) -> None:
        outbox.in_order()
        rewrite(only(), body=BODIES[name])
        outbox.per_shop("other")
        outbox.in_order("behind")
        relay()
        assert statuses() == ["DEAD", "SENT", "WAITING"]

    def test_what_can_be_read_and_can_not_be_called_is_tried_again(self, outbox: Any) -> None:
        """More arguments than the function takes, say: a later release may take them."""
        outbox.bare()
        rewrite(only(), body='{"args": [], "kwargs": {"not an identifier\\u0000": 1}}')
        let_be_due()
        relay()
        assert statuses() == ["SENT"]
        assert outbox.calls == [("bare", (), {"not an identifier\0": 1})]

    @pytest.mark.parametrize("name", BODIES)
    def test_a_class_that_a_bomb_would_name_is_not_looked_for(self, name: str) -> None:
        with pytest.raises(UnreadableEvent):
            serialization.decode_receiver(BODIES[name][:-1])


SHAPES: dict[str, Any] = {
    "no message list": [],
    "no messages": [[]],
    "text": ["x"],
    "a number": [7],
    "none": [None],
    "a list of none": [[None]],
    "a list of lists": [[[]]],
    "an empty message": [[{}]],
    "an app that is a list": [[{"app": ["x"]}]],
    "an unknown app": [[{"app": "nobody's"}]],
    "nothing but an app": [[{"app": "unit"}]],
    "two lists": [[{"app": "unit"}], [{"app": "unit"}]],
}


@pytest.mark.django_db
class TestACeleryMessage:
    """What is put on the wire by the batch: one that is wrong takes no neighbour along."""

    @pytest.mark.parametrize("name", SHAPES)
    def test_of_another_shape_fails_alone(
        self, celery_in_memory: Celery, kicked: Any, name: str
    ) -> None:
        app = OutboxCelery("unit", broker="memory://", set_as_current=False)
        for number in range(3):
            app.send_task("tests.hostile", args=(number,))
        rewrite(
            Event.objects.order_by("id")[1], body=json.dumps({"args": SHAPES[name], "kwargs": {}})
        )
        let_be_due()
        relay()
        assert statuses() == ["SENT", "DEAD", "SENT"]
        assert Event.objects.dead().get().error_message == "its body holds no Celery messages"

    def test_that_wants_a_queue_which_json_can_not_name_fails_alone(
        self, celery_in_memory: Celery
    ) -> None:
        app = OutboxCelery("unit", broker="memory://", set_as_current=False)
        for number, arguments in enumerate([{}, {"x-odd": Decimal(1)}, {}]):
            queue = Queue("hostile", queue_arguments=arguments)
            app.send_task("tests.hostile", args=(number,), queue=queue)
        let_be_due()
        relay()
        assert statuses() == ["SENT", "WAITING", "SENT"]

    def test_is_never_unpacked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any) -> Any:
            raise AssertionError("the relay unpacked a message")

        app = OutboxCelery("unit", broker="memory://", set_as_current=False)
        app.send_task("tests.hostile", args=("0" * 10_000_000,), compression="zlib")
        assert len(only().body) < 100_000
        for name in ("decompress", "get_decoder"):
            monkeypatch.setattr(kombu.compression, name, refuse)
        monkeypatch.setattr(zlib, "decompress", refuse)
        let_be_due()
        relay()
        assert statuses() == ["SENT"]

    def test_that_is_too_large_is_refused_at_the_call(self, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"MAX_PAYLOAD_BYTES": 5000}
        app = OutboxCelery("unit", broker="memory://", set_as_current=False)
        with pytest.raises(PayloadTooLarge):
            app.send_task("tests.hostile", args=(PAYLOAD * 500,))
        with pytest.raises(PayloadTooLarge):
            app.send_task("tests.hostile", headers={"bomb": doubled(40)}, serializer="json")
        assert not Event.objects.exists()
