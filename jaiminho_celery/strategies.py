"""How an event gets into the outbox: one INSERT in the caller's transaction, and one hook."""

from __future__ import annotations

import hashlib
import inspect
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from json import JSONEncoder
from typing import Any

from django.db import connections, router, transaction

from parviraptor_celery.clock import from_now
from parviraptor_celery.leases import worker_identity
from parviraptor_celery.texts import describe, storable

from . import barriers, hooks, kicks, methods
from .conf import settings
from .constants import KEY_LENGTH, LANE_LENGTH, PublishStrategyType
from .exceptions import KeyFailed, NameTooLong, NotSerializable, UnknownAlias
from .hooks import Leased
from .models import Event
from .registry import Call, OutboxFunction
from .serialization import VERSION, dumps, encode_call, encode_key
from .signing import sign
from .states import EventStatus

logger = logging.getLogger("jaiminho_celery")

_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def write(
    function: OutboxFunction,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    run_after: datetime | None = None,
) -> Event:
    """Write a call of ``function`` into the outbox, in the caller's transaction.

    With ``run_after`` an event without order waits for the relay until then.

    Raises:
        NotSerializable, PayloadTooLarge, KeyFailed, NameTooLong, UnknownAlias: before anything
            is written.
        ImproperlyConfigured: JAIMINHO_CONFIG can't be worked with; nothing is written either.
    """
    alias = function.using or router.db_for_write(Event)
    _require_alias(alias, function)
    receiver, args = methods.split(function.func, args)
    event = _compose(function, methods.text_of(receiver), args, kwargs)
    _warn_if_another_alias_is_in_a_transaction(alias, function)
    if function.effective_strategy == PublishStrategyType.KEEP_ORDER:
        _insert_in_order(event, alias)
    elif run_after is not None:
        event.run_after = run_after
        event.insert(alias)
    else:
        # What goes by the batch is frozen already: read back it would be the same.
        content = (function, (list(args), dict(kwargs))) if function.publish_many else None
        _insert_leased(event, alias, receiver, content)
    return event


def lane_of(stream: str, key: str) -> str:
    """Return the lane of a stream and key: 32 hexadecimal digits (BLAKE2b-128)."""
    text = dumps([stream, key]).encode()
    return hashlib.blake2b(text, digest_size=LANE_LENGTH // 2).hexdigest()


def _compose(
    function: OutboxFunction,
    receiver: str | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Event:
    encoder, kwargs = _take_encoder(function, kwargs)
    key = "" if function.key is None else _key_of(function, args, kwargs)
    event = Event(
        stream=function.stream,
        key=key,
        strategy=str(function.effective_strategy),
        name=function.name,
        version=VERSION,
        body=encode_call(args, kwargs, encoder, settings.MAX_PAYLOAD_BYTES, receiver),
    )
    if settings.SIGN_EVENTS:
        event.signature = sign(event)
    return event


def _take_encoder(
    function: OutboxFunction, kwargs: Mapping[str, Any]
) -> tuple[type[JSONEncoder], dict[str, Any]]:
    """Return the encoder of a call, and the arguments without it.

    The class is for the outbox: it could not make the way through JSON anyway. Anything else
    that is called ``encoder`` is an argument like others.
    """
    rest, given = dict(kwargs), kwargs.get("encoder")
    if isinstance(given, type) and issubclass(given, JSONEncoder):
        _refuse_if_required(function)
        del rest["encoder"]
        return given, rest
    return function.encoder or settings.default_encoder(), rest


def _refuse_if_required(function: OutboxFunction) -> None:
    own = inspect.signature(function.func).parameters.get("encoder")
    if own is not None and own.kind not in _COLLECTING and own.default is own.empty:
        raise NotSerializable(
            f"encoder: {function.name} asks for an encoder itself, but a class can't be sent: the "
            "outbox encodes this call with it. Give the function's parameter a default."
        )


def _key_of(function: OutboxFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    try:
        key = encode_key(function.key(*args, **kwargs))  # type: ignore[misc]
    except Exception as error:
        raise KeyFailed(
            f"{function.name}: its key= could not name the key of this call "
            f"({describe(error, with_type=True)}). It is called with the call's own arguments, "
            "and has to return a text or plain data."
        ) from error
    if storable(key) != key:
        raise KeyFailed(
            f"{function.name}: the key that key= returned holds NUL or half a character (a lone "
            "surrogate), which databases refuse."
        )
    if len(key) > KEY_LENGTH:
        raise NameTooLong(f"{function.name}: the ordering key exceeds {KEY_LENGTH} characters.")
    return key


def _require_alias(alias: str, function: OutboxFunction) -> None:
    if alias not in connections:
        raise UnknownAlias(
            f"{function.name} writes its events to {alias!r}, which DATABASES lacks. "
            f"Known: {', '.join(connections)}."
        )


def _insert_in_order(event: Event, alias: str) -> None:
    event.lane = lane_of(event.stream, event.key)
    event.run_after = None  # at its turn: this process's clock has no say in it
    with transaction.atomic(using=alias, savepoint=False):
        barriers.enter(event.lane, alias)
        event.insert(alias)
        kicks.on_commit(event, alias)


def _insert_leased(
    event: Event, alias: str, receiver: Any, content: tuple[OutboxFunction, Call] | None
) -> None:
    """Insert a row that is leased to its own hook: the relay leaves it alone until then."""
    event.status = EventStatus.PUBLISHING
    event.attempt = 1
    event.leased_by = worker_identity()
    event.lease_until = from_now(settings.LEASE_SECONDS)
    leased_at = time.monotonic()
    event.insert(alias)
    hooks.on_commit(Leased(event, leased_at, receiver, content))


def _warn_if_another_alias_is_in_a_transaction(alias: str, function: OutboxFunction) -> None:
    if connections[alias].in_atomic_block:
        return
    busy = [name for name in connections if name != alias and _is_in_transaction(name)]
    if busy:
        logger.warning(
            "%s writes its event to %r, which is in no transaction, while %s is: a rollback "
            "there will not take the event back. Pass using=….",
            function.name,
            alias,
            ", ".join(map(repr, busy)),
        )


def _is_in_transaction(alias: str) -> bool:
    # Reading the attribute through `connections` would create a connection for each alias.
    opened = {connection.alias for connection in connections.all(initialized_only=True)}
    return alias in opened and connections[alias].in_atomic_block
