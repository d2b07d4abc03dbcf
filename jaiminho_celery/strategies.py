"""How an event gets into the outbox: one INSERT in the caller's transaction, and one hook."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from django.db import connections, router, transaction

from parviraptor_celery.clock import from_now
from parviraptor_celery.database import alone
from parviraptor_celery.feeds import settle_alone
from parviraptor_celery.leases import worker_identity

from . import barriers, execution, holding, kicks
from .conf import settings
from .constants import KEY_LENGTH, LANE_LENGTH, PublishStrategyType
from .exceptions import NameTooLong
from .models import Event
from .registry import OutboxFunction
from .serialization import VERSION, dumps, encode_call, encode_key
from .signing import sign
from .states import EventStatus

logger = logging.getLogger("jaiminho_celery")


def write(function: OutboxFunction, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Event:
    """Write a call of ``function`` into the outbox, in the caller's transaction.

    Raises:
        NotSerializable, PayloadTooLarge, NameTooLong: before anything is written.
    """
    alias = function.using or router.db_for_write(Event)
    event = _compose(function, args, kwargs)
    _warn_if_another_alias_is_in_a_transaction(alias, function)
    if function.effective_strategy == PublishStrategyType.KEEP_ORDER:
        _insert_in_order(event, alias)
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
        event.save(using=alias, force_insert=True)
        kicks.on_commit(event, alias)


def _insert_leased(event: Event, alias: str) -> None:
    """Insert a row that is leased to its own hook: the relay leaves it alone until then."""
    event.status = EventStatus.PUBLISHING
    event.attempt = 1
    event.leased_by = worker_identity()
    event.lease_until = from_now(settings.LEASE_SECONDS)
    leased_at = time.monotonic()
    event.save(using=alias, force_insert=True)

    def publish() -> None:
        _publish_after_commit(event, leased_at)

    transaction.on_commit(publish, using=alias, robust=True)


def _publish_after_commit(event: Event, leased_at: float) -> None:
    """Run the hook of one event.

    After a long transaction, or slow hooks before this one, the lease may have run out and the
    relay may have the event: the hook first has to win it again.
    """
    if holding.is_held():
        return  # a test works the row off when it says so
    is_late = time.monotonic() - leased_at > settings.LEASE_SECONDS / 2
    if is_late and not alone(event.alias, event.renew):
        return
    run = execution.run(event, by_relay=False)
    settle_alone(run, event.alias)
    run.announce()


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
