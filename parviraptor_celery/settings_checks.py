"""What can be known to be wrong with an app's settings. Both apps use this module.

Numbers of checks: 1 the dictionary as a whole, 2 time zones, from 101 on one per key (given where
the key is declared), from 201 on what two settings say together.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning

from .conf import AppSettings
from .conf import settings as queue_settings

BROKER_STEPS = 3
"""Connecting, the handshake, the message: each may take BROKER_TIMEOUT_SECONDS."""


def key_problems(settings: AppSettings, app: str) -> Iterator[CheckMessage]:
    """Yield what is wrong with single keys; the rest is worth a look only if that is nothing."""
    for problem in settings.problems():
        yield Error(problem.message, hint=problem.hint, id=f"{app}.E{problem.check:03}")


def time_zone_problems(app: str) -> Iterator[CheckMessage]:
    if not django_settings.USE_TZ:
        yield Error(
            "Leases and due times need time zone support.",
            hint="Set USE_TZ = True.",
            id=f"{app}.E002",
        )


def lease_problems(name: str, lease_seconds: float, app: str) -> Iterator[CheckMessage]:
    """Yield a warning if an attempt to reach the broker may outlast a lease of ``name``.

    A heartbeat renews leases meanwhile, every third of them. Shorter than this, one broker that
    answers nothing is enough to miss a beat on a busy machine, and the row runs twice.
    """
    if any(queue_settings.problems()):
        return
    least = BROKER_STEPS * queue_settings.BROKER_TIMEOUT_SECONDS
    if lease_seconds < least:
        yield Warning(
            f"{name}['LEASE_SECONDS'] is {lease_seconds:g}: shorter than one attempt to reach a "
            f"broker that is away ({least:g} seconds).",
            hint=f"Set it to {least:g} at least, or lower "
            "PARVIRAPTOR_CONFIG['BROKER_TIMEOUT_SECONDS'].",
            id=f"{app}.W203",
        )
