"""How an event gets into the outbox: one INSERT in the caller's transaction, and one hook."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import connections, router, transaction

from parviraptor_celery.clock import from_now
from parviraptor_celery.leases import worker_identity

from . import barriers, hooks, kicks
from .conf import settings
from .constants import KEY_LENGTH, LANE_LENGTH, PublishStrategyType
from .exceptions import NameTooLong
from .models import Event
from .registry import OutboxFunction
from .serialization import VERSION, dumps, encode_call, encode_key
from .signing import sign
from .states import EventStatus

logger = logging.getLogger("jaiminho_celery")


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
        NotSerializable, PayloadTooLarge, NameTooLong: before anything is written.
    """
    alias = function.using or router.db_for_write(Event)
    event = _compose(function, args, kwargs)
    _warn_if_another_alias_is_in_a_transaction(alias, function)
    if function.effective_strategy == PublishStrategyType.KEEP_ORDER:
        _insert_in_order(event, alias)
    elif run_after is not None:
        event.run_after = run_after
        event.insert(alias)
    else:
        _insert_leased(event, alias)
    return event


def lane_of(stream: str, key: str) -> str:
    """Return the lane of a stream and key: 32 hexadecimal digits (BLAKE2b-128)."""
    text = dumps([stream, key]).encode()
    return hashlib.blake2b(text, digest_size=LANE_LENGTH // 2).hexdigest()


def _compose(function: OutboxFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Event:
    encoder = function.encoder or settings.default_encoder()
    key = "" if function.key is None else encode_key(function.key(*args, **kwargs))
    if len(key) > KEY_LENGTH:
        raise NameTooLong(f"{function.name}: the ordering key exceeds {KEY_LENGTH} characters.")
    event = Event(
        stream=function.stream,
        key=key,
        strategy=str(function.effective_strategy),
        name=function.name,
        version=VERSION,
        body=encode_call(args, kwargs, encoder, settings.MAX_PAYLOAD_BYTES),
    )
    if settings.SIGN_EVENTS:
        event.signature = sign(event)
    return event


def _insert_in_order(event: Event, alias: str) -> None:
    event.lane = lane_of(event.stream, event.key)
    event.run_after = None  # at its turn: this process's clock has no say in it
    with transaction.atomic(using=alias, savepoint=False):
        barriers.enter(event.lane, alias)
        event.insert(alias)
        kicks.on_commit(event, alias)


def _insert_leased(event: Event, alias: str) -> None:
    """Insert a row that is leased to its own hook: the relay leaves it alone until then."""
    event.status = EventStatus.PUBLISHING
    event.attempt = 1
    event.leased_by = worker_identity()
    event.lease_until = from_now(settings.LEASE_SECONDS)
    leased_at = time.monotonic()
    event.insert(alias)
    hooks.on_commit(event, leased_at)


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
