"""What may happen to a queue: the steps of test_queue_machine.py, and how likely each is."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from parviraptor_celery.states import CLAIMABLE, TRANSITIONS, JobStatus
from tests.faults.machines import HOUR

KICK_JOBS, KEEP_HOURS, LONG_WAIT_HOURS = 3, 24, 16
ENDINGS = ["", "", "", "temporary", "defer", "fail", "invalid", "ignore", "unprocessable"]
FINAL = [status for status, following in TRANSITIONS.items() if not following]
MOST_ASKED, MONITORED_EVERY = 1, 4
"""Each step asks so many jobs why they wait; each of so many steps looks at the monitoring."""

CONFIG = {
    "LEASE_SECONDS": HOUR.total_seconds(),
    "KICK_JOBS": KICK_JOBS,
    "KICK_SECONDS": HOUR.total_seconds(),
    "RETRY_COUNTDOWN_CAP_SECONDS": 3 * HOUR.total_seconds(),
    "MAX_WORKER_DEATHS": 2,
}
"""All pauses are hours: a step takes as long as it likes, and nothing becomes due meanwhile."""

NUMBERS = st.integers(0, 9)
LANES = st.integers(0, 1)


@dataclass(frozen=True)
class Enqueue:
    """Create jobs in a lane, due in so many hours (0: at once)."""

    lane: int
    script: str
    due: int = 0
    priority: int = 0
    key: str | None = None
    copies: int = 1


@dataclass(frozen=True)
class Decide:
    """Let a person do something to a job, which may have changed since it was looked at."""

    verb: str
    which: int
    is_stale: bool = False


@dataclass(frozen=True)
class SetPause:
    """Pause or resume a lane, or the queue (None)."""

    lane: int | None
    verb: str


JOBS = st.builds(
    Enqueue,
    lane=LANES,
    script=st.sampled_from(ENDINGS),
    due=st.sampled_from([0, 0, 0, 1, 5]),
    priority=st.integers(-1, 1),
    key=st.sampled_from([None, None, "k", "l"]),
    copies=st.sampled_from([1, 1, 2]),
)
DECISIONS = st.builds(
    Decide,
    verb=st.sampled_from(["retry", "retry", "ignore", "cancel", "delete", "mend"]),
    which=NUMBERS,
    is_stale=st.booleans(),
)
PAUSES = st.builds(
    SetPause, lane=st.none() | LANES, verb=st.sampled_from(["resume", "resume", "pause"])
)
STEPS = JOBS | JOBS | DECISIONS | PAUSES
SUITABLE = {
    "retry": (JobStatus.FAILED,),
    "ignore": (JobStatus.FAILED,),
    "cancel": CLAIMABLE,
    "mend": (*CLAIMABLE, JobStatus.FAILED),
}
"""Which jobs a decision is rather about; others refuse it."""
FATES = ["commit", "commit", "rollback", "enqueued", "committed"]
DEATHS = st.none() | st.tuples(
    st.sampled_from(["claimed", "processed", "settled"]), st.integers(1, 3)
)
