"""What may happen to the outbox: the steps of test_outbox_machine.py, and how likely each is."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from jaiminho_celery.states import TRANSITIONS
from tests.faults.machines import HOUR

RELAY_ROWS, KEEP_HOURS = 3, 24
ENDINGS = ["", "", "failing", "hopeless"]
FINAL = [status for status, following in TRANSITIONS.items() if not following]
SIGNALS = {
    "event_published": "published",
    "event_failed_to_publish": "failed",
    "event_permanently_failed": "permanently failed",
}
NUMBERS = st.integers(0, 9)


class Hopeless(Exception):
    """Listed in NON_RETRYABLE_EXCEPTIONS."""


CONFIG = {
    "LEASE_SECONDS": HOUR.total_seconds(),
    "RELAY_INTERVAL_SECONDS": HOUR.total_seconds(),
    "RELAY_ROWS": RELAY_ROWS,
    "RELAY_SECONDS": HOUR.total_seconds(),
    "TIME_TO_DELETE": KEEP_HOURS * HOUR,
    "NON_RETRYABLE_EXCEPTIONS": (Hopeless,),
}


@dataclass(frozen=True)
class Send:
    """Call a function: one with a hook, or one in order (of its stream, or of a key)."""

    name: str
    ending: str
    copies: int = 1


@dataclass(frozen=True)
class Dawdle:
    """Let hours pass inside the transaction."""

    hours: int = 1


@dataclass(frozen=True)
class RelayInBetween:
    """Let another process sweep between the commit and the hooks of what follows."""


@dataclass(frozen=True)
class Decide:
    """Let a person do something to an event, which may have changed since it was looked at."""

    verb: str
    which: int
    is_stale: bool = False


NAMES = ["hooked", "in a stream", "key a", "key b"]
SENDS = st.builds(
    Send,
    name=st.sampled_from(NAMES),
    ending=st.sampled_from(ENDINGS),
    copies=st.sampled_from([1, 1, 2, 3]),
)
DECISIONS = st.builds(
    Decide,
    verb=st.sampled_from(["replay", "replay", "skip", "discard"]),
    which=NUMBERS,
    is_stale=st.booleans(),
)
STEPS = SENDS | SENDS | DECISIONS | st.builds(Dawdle) | st.builds(RelayInBetween)
HOOK_DEATHS = st.tuples(st.sampled_from(["committed", "called", "settled"]), st.integers(1, 3))
DEATHS = st.none() | st.tuples(st.sampled_from(["called", "settled"]), st.integers(1, 3))
