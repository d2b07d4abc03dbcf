"""Signatures: a row that somebody changed in the database is not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.core.signing import base64_hmac
from django.utils.crypto import constant_time_compare

from .exceptions import BadEventSignature

if TYPE_CHECKING:
    from .models import Event

SALT = "jaiminho_celery.event"


def sign(event: Event) -> str:
    """Return the signature of what decides what ``event`` does (HMAC-SHA256, SECRET_KEY)."""
    return _signature(_framed(event), settings.SECRET_KEY)


def verify(event: Event) -> None:
    """Compare the signature with the current key and with SECRET_KEY_FALLBACKS.

    Raises:
        BadEventSignature: none of them fits.
    """
    content = _framed(event)
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        if constant_time_compare(event.signature, _signature(content, key)):
            return
    raise BadEventSignature(
        "it is not signed"
        if not event.signature
        else "it was changed after it was signed, or "
        "its key is neither SECRET_KEY nor one of SECRET_KEY_FALLBACKS"
    )


def _signature(content: str, key: str | bytes) -> str:
    """Return what ``Signer(salt=SALT)`` would, without making one for every row."""
    return base64_hmac(SALT + "signer", content, key, algorithm="sha256")


def _framed(event: Event) -> str:
    """Return the signed fields, each with its length, so that none can run into the next.

    The database alias is left out: processes may name the same database differently.
    """
    parts = (
        event.uuid.hex,
        event.stream,
        event.key,
        event.strategy,
        event.name,
        str(event.version),
        event.body,
    )
    return "".join(f"{len(part)}:{part}" for part in parts)
