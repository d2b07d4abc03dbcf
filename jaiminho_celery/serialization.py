"""Arguments to JSON and back, so that what comes back equals what was sent.

JSON knows neither dates nor bytes, so these travel in an envelope, a dictionary with the one
key ``ENVELOPE``; a dictionary of the user's that looks like one travels in an envelope itself.
Nothing is ever looked up by a name from the body: the kinds are the table below.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from json import JSONEncoder
from typing import Any
from uuid import UUID

from parviraptor_celery.texts import shown

from .exceptions import NotSerializable, PayloadTooLarge, UnreadableEvent

VERSION = 1
ENVELOPE = "__jaiminho__"
DEEPEST = 100
LONGEST_INT_BITS = 13_000
"""Python itself refuses to print or read longer ones (CVE-2020-10735)."""

SURELY_TOO_LARGE = 4
"""So many times the largest size end the walk: up to there the message can say the exact size."""

MOST_OF_A_KEY = 64 * 1024

Path = tuple[Any, ...]
"""The way to a value: ``(way to what holds it, index or key)``, or ``(name,)`` at its beginning.

Told only when something is wrong, so it is not put together before: keys may be long.
"""

A_KEY = object()
"""The step to a key itself, rather than to what it leads to."""

# Order matters: a datetime is a date.
_KINDS: list[tuple[str, type, Callable[[Any], str], Callable[[str], Any]]] = [
    ("datetime", datetime, datetime.isoformat, datetime.fromisoformat),
    ("date", date, date.isoformat, date.fromisoformat),
    ("time", time, time.isoformat, time.fromisoformat),
    ("decimal", Decimal, str, Decimal),
    ("uuid", UUID, str, UUID),
    ("bytes", bytes, lambda raw: base64.b64encode(raw).decode(), base64.b64decode),
]
_DECODERS = {kind: decode for kind, _, _, decode in _KINDS}


def encode_call(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    encoder: type[JSONEncoder],
    max_bytes: int,
    receiver: str | None = None,
) -> str:
    """Return a call's arguments as ASCII JSON, and what its method was called on.

    Raises:
        NotSerializable: an argument can't make the round trip; the message says where it is.
        PayloadTooLarge: the result exceeds ``max_bytes``.
    """
    walk = _Encoder(encoder, max_bytes)
    body: dict[str, Any] = {
        "args": [walk(value, (("args",), at)) for at, value in enumerate(args)],
        "kwargs": {name: walk(value, (name,)) for name, value in kwargs.items()},
    }
    if receiver is not None:
        body["on"] = receiver
    text = dumps(body)
    if len(text) > max_bytes:
        raise _too_large(f"{len(text)}", max_bytes)
    return text


def decode_call(body: str, version: int) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that ``encode_call`` was given, tuples as lists.

    Raises:
        UnreadableEvent: the body is not what ``encode_call`` writes.
    """
    if version != VERSION:
        raise UnreadableEvent(f"its body has version {version}; this release reads {VERSION}")
    try:
        call = json.loads(body, object_hook=_unwrapped)
        args, kwargs = call["args"], call["kwargs"]
        if not (isinstance(args, list) and isinstance(kwargs, dict)):
            raise TypeError("arguments")
        return args, kwargs
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise UnreadableEvent(f"its body can't be read ({type(error).__name__})") from error


def decode_receiver(body: str) -> str | None:
    """Return what the method of a call was called on, as ``encode_call`` was given it.

    Raises:
        UnreadableEvent: the body is not what ``encode_call`` writes.
    """
    try:
        receiver = json.loads(body).get("on")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UnreadableEvent(f"its body can't be read ({type(error).__name__})") from error
    if receiver is not None and not isinstance(receiver, str):
        raise UnreadableEvent("its body names no class")
    return receiver


def encode_key(value: object) -> str:
    """Return an ordering key as text: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return str.__str__(value)
    return dumps(_Encoder(JSONEncoder, MOST_OF_A_KEY)(value, ("key",)))


def dumps(value: object) -> str:
    """Return compact ASCII JSON: every engine stores it, NUL and emoji included."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


class _Encoder:
    """Turns a value into what JSON can carry; knows the way to what it can't.

    A list that holds another one twice, which does so in its turn, is small in memory and endless
    as JSON. So what was written is counted, and the walk ends with what is surely too large.
    """

    def __init__(self, encoder: type[JSONEncoder], max_bytes: int) -> None:
        self._default = encoder().default
        self._max_bytes, self._left = max_bytes, max_bytes * SURELY_TOO_LARGE

    def __call__(self, value: Any, path: Path, depth: int = 0) -> Any:
        self._count(len(value) if isinstance(value, str | bytes) else 1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return self._printable(value, path)
        if isinstance(value, float):
            return self._finite(value, path)
        if depth > DEEPEST:
            place = _place(path)
            raise NotSerializable(f"{place}: nested deeper than {DEEPEST} levels, or in itself.")
        if isinstance(value, list | tuple):
            return [self(item, (path, at), depth + 1) for at, item in enumerate(value)]
        if isinstance(value, dict):
            return self._dictionary(value, path, depth + 1)
        for kind, python_type, encode, _ in _KINDS:
            if isinstance(value, python_type):
                return {ENVELOPE: [kind, encode(value)]}
        return self(self._by_default(value, path), path, depth + 1)

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _too_large(f"more than {self._max_bytes * SURELY_TOO_LARGE}", self._max_bytes)

    def _printable(self, value: int, path: Path) -> int:
        if value.bit_length() > LONGEST_INT_BITS:
            place = _place(path)
            raise NotSerializable(f"{place}: an int of more than 4,000 digits has no JSON form.")
        return int(value)

    def _finite(self, value: float, path: Path) -> float:
        if not math.isfinite(value):
            raise NotSerializable(f"{_place(path)}: {value} has no JSON form.")
        return float(value)

    def _dictionary(self, value: dict[Any, Any], path: Path, depth: int) -> dict[str, Any]:
        if ENVELOPE not in value and all(isinstance(key, str) for key in value):
            found = {}
            for key, item in value.items():
                self._count(len(key))
                found[str.__str__(key)] = self(item, (path, key), depth)
            return found
        pairs = [
            [self(key, (path, A_KEY), depth), self(item, (path, key), depth)]
            for key, item in value.items()
        ]
        return {ENVELOPE: ["dict", pairs]}

    def _by_default(self, value: object, path: Path) -> Any:
        try:
            return self._default(value)
        except Exception as error:  # whatever a user's encoder raises
            raise NotSerializable(
                f"{_place(path)}: a value of type {type(value).__qualname__} can't be written as "
                "JSON. Pass plain data (an id instead of a model, for example), or give the "
                "decorator an encoder= whose default() converts it."
            ) from error


def _place(path: Path) -> str:
    """Return the way to a value as a person would write it, each key of it shortened."""
    steps = []
    while len(path) == 2:
        path, step = path
        steps.append(", a key" if step is A_KEY else f"[{shown(step)}]")
    return "".join((path[0], *reversed(steps)))


def _too_large(size: str, max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The arguments take {size} bytes; JAIMINHO_CONFIG['MAX_PAYLOAD_BYTES'] allows "
        f"{max_bytes}. Send a reference to the data instead of the data."
    )


def _unwrapped(found: dict[str, Any]) -> Any:
    """Return what an envelope holds; called for every dictionary, the innermost first."""
    if ENVELOPE not in found:
        return found
    kind, content = found[ENVELOPE]
    if kind == "dict":
        return {_hashable(key): item for key, item in content}
    return _DECODERS[kind](content)


def _hashable(key: Any) -> Any:
    return tuple(_hashable(item) for item in key) if isinstance(key, list) else key
