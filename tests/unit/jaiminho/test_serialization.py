"""The codec: what goes in comes out, or is refused at once with its place."""

from __future__ import annotations

import collections
import enum
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from json import JSONEncoder
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from jaiminho_celery.exceptions import NotSerializable, PayloadTooLarge, UnreadableEvent
from jaiminho_celery.serialization import ENVELOPE, VERSION, decode_call, encode_call, encode_key

PLENTY = 10**7
# Whole seconds: CPython reads "+00:00:00.000001" as UTC, and no zone has such an offset.
OFFSETS = st.integers(-82_800, 82_800).map(lambda seconds: timedelta(seconds=seconds))
ZONES = st.none() | st.just(UTC) | OFFSETS.map(timezone)

texts = st.text() | st.just(ENVELOPE) | st.just("\x00\U0001f600 \ud800")
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
rich = st.one_of(
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(timezones=ZONES),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.binary(),
)
scalars = st.one_of(st.none(), st.booleans(), texts, numbers, rich)
keys = st.one_of(texts, st.integers(), st.booleans(), st.none(), st.dates(), st.uuids())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
lookalikes = st.fixed_dictionaries(
    {ENVELOPE: st.one_of(values, st.tuples(st.sampled_from(["bytes", "dict", "x"]), st.text()))}
).map(lambda made: {ENVELOPE: list(v) if isinstance(v := made[ENVELOPE], tuple) else v})


def encode(*args: Any, encoder: type[JSONEncoder] = DjangoJSONEncoder, **kwargs: Any) -> str:
    return encode_call(args, kwargs, encoder, PLENTY)


def there_and_back(value: Any) -> Any:
    args, _ = decode_call(encode(value), VERSION)
    return args[0]


def same(one: Any, other: Any) -> bool:
    """Return whether both are equal, of the same type, all the way down (1 == True == 1.0)."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(map(list, one.items())), list(map(list, other.items())))
    if isinstance(one, tuple):
        return same(list(one), list(other))
    return bool(one == other)


class TestTheRoundTrip:
    @given(values | lookalikes)
    def test_gives_back_what_was_sent(self, value: Any) -> None:
        assert same(there_and_back(value), value)

    @given(st.lists(values, max_size=3), st.dictionaries(st.text(), values, max_size=3))
    def test_keeps_positional_and_named_arguments_apart(
        self, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        body = encode_call(tuple(args), kwargs, DjangoJSONEncoder, PLENTY)
        got_args, got_kwargs = decode_call(body, VERSION)
        assert same(got_args, args)
        assert same(got_kwargs, kwargs)

    @given(values | lookalikes)
    def test_is_ascii_json_on_the_way(self, value: Any) -> None:
        body = encode(value)
        assert body.isascii()
        assert "\x00" not in body
        json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    @pytest.mark.parametrize(
        "value",
        [
            "\x00",
            "\ud800",
            "\u2028\U0001f600",
            datetime(2024, 10, 27, 12, 30, 0, 1, tzinfo=ZoneInfo("Europe/Berlin")),
            datetime.max,
            datetime.min.replace(tzinfo=UTC),
            date(1, 1, 1),
            time(23, 59, 59, 999999),
            Decimal("1.10"),
            Decimal("-0.0"),
            Decimal("1E+400"),
            Decimal("Infinity"),
            b"\x00\xff",
            b"",
            2**200,
            -0.0,
            5e-324,
            {1: "a", "1": "b"},
            {(1, "a"): 2},
            {None: 1, True: 2, Decimal("1.5"): 3},
            {ENVELOPE: ["bytes", "AAAA"]},
            {ENVELOPE: 1, 2: {ENVELOPE: []}},
            {"__type__": "uuid", "__value__": "no uuid"},
            [[[]], {}, {"": {}}],
        ],
        ids=repr,
    )
    def test_gives_back_the_awkward_ones(self, value: Any) -> None:
        assert same(there_and_back(value), value)

    def test_keeps_the_scale_of_a_decimal(self) -> None:
        assert str(there_and_back(Decimal("1.10"))) == "1.10"

    def test_makes_tuples_lists(self) -> None:
        assert there_and_back((1, (2, 3))) == [1, [2, 3]]
        point = collections.namedtuple("point", "x y")
        assert there_and_back(point(1, 2)) == [1, 2]

    def test_makes_subclasses_plain(self) -> None:
        class Level(enum.IntEnum):
            HIGH = 3

        class Name(enum.StrEnum):
            ADA = "ada"

        ordered = collections.OrderedDict([("b", 1), ("a", 2)])
        sent = [Level.HIGH, Name.ADA, mark_safe("<b>"), ordered]
        assert same(there_and_back(sent), [3, "ada", "<b>", {"b": 1, "a": 2}])

    def test_has_room_for_a_hundred_levels(self) -> None:
        deep: Any = 1
        for _ in range(100):
            deep = [deep]
        assert there_and_back(deep) == deep


class TestOtherTypes:
    def test_arrive_as_the_encoder_says(self) -> None:
        assert there_and_back(timedelta(days=1)) == "P1DT00H00M00S"
        assert there_and_back(lazystr("later")) == "later"

    def test_may_be_converted_to_what_the_codec_knows(self) -> None:
        class Encoder(JSONEncoder):
            def default(self, o: Any) -> Any:
                return {"items": sorted(o), "at": date(2024, 1, 1)}

        args, _ = decode_call(encode({3, 1}, encoder=Encoder), VERSION)
        assert args == [{"items": [1, 3], "at": date(2024, 1, 1)}]


class Anything:
    pass


class TestWhatCanNotBeEncoded:
    @pytest.mark.parametrize(
        ("args", "kwargs", "place", "kind"),
        [
            ((Anything(),), {}, "args[0]", "Anything"),
            ((1, [2, {"a": Anything()}]), {}, "args[1][1]['a']", "Anything"),
            ((), {"order": {"lines": [Anything()]}}, "order['lines'][0]", "Anything"),
            (({1: Anything()},), {}, "args[0][1]", "Anything"),
            (({frozenset(): 1},), {}, "args[0], a key", "frozenset"),
            (({1, 2},), {}, "args[0]", "set"),
            ((len,), {}, "args[0]", "builtin_function"),
            ((float("nan"),), {}, "args[0]", "nan"),
            (([float("inf")],), {}, "args[0][0]", "inf"),
            (({"a": -float("inf")},), {}, "args[0]['a']", "-inf"),
            ((0, 10**5000), {}, "args[1]", "int"),
            ((1 + 2j,), {}, "args[0]", "complex"),
        ],
        ids=lambda value: value if isinstance(value, str) else "-",
    )
    def test_is_refused_with_its_place(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], place: str, kind: str
    ) -> None:
        with pytest.raises(NotSerializable) as caught:
            encode(*args, **kwargs)
        assert str(caught.value).startswith(f"{place}:")
        assert kind in str(caught.value)

    def test_includes_what_contains_itself(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(NotSerializable, match="nested deeper"):
            encode(endless)

    def test_includes_what_the_encoder_converts_to_itself(self) -> None:
        class Encoder(JSONEncoder):
            def default(self, o: Any) -> Any:
                return o

        with pytest.raises(NotSerializable, match="nested deeper"):
            encode(Anything(), encoder=Encoder)


class TestTheSize:
    def test_may_be_what_is_allowed(self) -> None:
        body = encode_call(("x" * 100,), {}, DjangoJSONEncoder, PLENTY)
        assert encode_call(("x" * 100,), {}, DjangoJSONEncoder, len(body)) == body

    def test_may_not_exceed_it(self) -> None:
        body = encode_call(("x" * 100,), {}, DjangoJSONEncoder, PLENTY)
        with pytest.raises(PayloadTooLarge, match=f"{len(body)} bytes.*MAX_PAYLOAD_BYTES"):
            encode_call(("x" * 100,), {}, DjangoJSONEncoder, len(body) - 1)

    def test_is_counted_in_bytes_on_the_way(self) -> None:
        with pytest.raises(PayloadTooLarge):
            encode_call(("\U0001f600" * 10,), {}, DjangoJSONEncoder, 100)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "nonsense",
        "[]",
        "1",
        "null",
        "{}",
        '{"args": []}',
        '{"args": {"a": 1}, "kwargs": {}}',
        '{"args": "ab", "kwargs": {}}',
        '{"args": 1, "kwargs": {}}',
        '{"args": [], "kwargs": []}',
        '{"args": [], "kwargs": [["a", 1]]}',
        '{"args": [{"__jaiminho__": ["pickle", ""]}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": ["decimal", "much"]}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": ["uuid", 5]}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": ["bytes", "a"]}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": ["datetime", "soon"]}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": ["date"]}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": null}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": [["dict"], []]}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": ["dict", [[{}, 1]]]}], "kwargs": {}}',
        '{"args": [{"__jaiminho__": ["dict", 5]}], "kwargs": {}}',
        "[" * 100_000,
        json.dumps({"args": [{ENVELOPE: ["dict", [["a"]]]}], "kwargs": {}}),
    ],
    ids=lambda body: body[:60],
)
def test_a_body_that_nobody_wrote_is_unreadable(body: str) -> None:
    with pytest.raises(UnreadableEvent):
        decode_call(body, VERSION)


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_a_body_of_another_version_is_unreadable(version: int) -> None:
    with pytest.raises(UnreadableEvent, match=f"version {version}"):
        decode_call(encode(1), version)


@pytest.mark.parametrize(
    ("value", "key"),
    [("a", "a"), ("", ""), (1, "1"), (None, "null"), (["a", 1], '["a",1]'), (("a", 1), '["a",1]')],
)
def test_an_ordering_key_is_text(value: object, key: str) -> None:
    assert encode_key(value) == key


def test_equal_ordering_keys_are_equal_texts() -> None:
    serial = uuid.uuid4()
    assert encode_key(serial) == encode_key(uuid.UUID(str(serial)))
    assert encode_key(serial) != encode_key(uuid.uuid4())


def test_an_ordering_key_that_is_no_data_is_refused() -> None:
    with pytest.raises(NotSerializable, match="key"):
        encode_key(Anything())
