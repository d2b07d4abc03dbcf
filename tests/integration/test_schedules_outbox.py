"""All schedules of hooks, relays, writers and people around the outbox, within a bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from jaiminho_celery import barriers
from jaiminho_celery.kicks import RELAY
from jaiminho_celery.states import EventStatus
from parviraptor_celery.exceptions import IllegalTransition
from tests.faults.exploring import Explore
from tests.faults.exploring import explored as explored
from tests.faults.streams import Streams
from tests.faults.world import RECOVERY, who

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)

Parts = Mapping[str, Callable[[], object]]


class AHookAndARelay(Streams):
    """A hook publishes what it has just committed; a relay believes that its lease has run out."""

    names = "PR"
    preemptions = 2
    is_swept = True
    expected: ClassVar[Any] = frozenset({"hook", "hook relay", "relay hook"})

    def parts(self) -> Parts:
        return {"P": lambda: self.write(self.on_commit, "a1"), "R": self.relay_expired}

    def lane_of(self, item: str) -> str:
        return ""  # no order is promised

    def kind(self) -> str:
        return " ".join("hook" if name == "P" else "relay" for name, _ in self.runs())


class AFailingHookAndARelay(AHookAndARelay):
    """The same, and in the hook the function fails: the relay's word counts."""

    def call(self, item: str) -> None:
        if who() == "P":
            raise ConnectionError("the other side is away")

    def kind(self) -> str:
        return super().kind().removesuffix(" relay") if not self.stale else super().kind()


@CONCURRENT
@pytest.mark.parametrize("scenario", [AHookAndARelay, AFailingHookAndARelay])
def test_a_hook_and_a_relay_publish_twice_only_if_the_lease_was_lost_and_lose_nothing(
    explored: Explore, scenario: type[AHookAndARelay]
) -> None:
    explored(scenario)


class ALateHook(AHookAndARelay):
    """More than half of its lease is over when the hook comes: it first has to win the event."""

    expected: ClassVar[Any] = frozenset({"hook", "relay"})

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        super().prepare(patch)
        late = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
        patch.setattr("jaiminho_celery.hooks.time", late)

    def may_begin(self, run: str) -> None:
        if run in self.stale:
            self.problems.append("a hook began what a relay had taken away before")


@CONCURRENT
def test_a_late_hook_never_begins_what_a_relay_has_taken_away(explored: Explore) -> None:
    explored(ALateHook)


class ALateWriter(Streams):
    """Two writers of one key, of whom either may commit first, and a relay that waits for them."""

    names = "WVR"
    expected: ClassVar[Any] = frozenset({"a1 a2", "a2 a1"})

    def parts(self) -> Parts:
        return {
            "W": lambda: self.write(self.in_order, "a1"),
            "V": lambda: self.write(self.in_order, "a2"),
            "R": self.worker,
        }

    def kind(self) -> str:
        return " ".join(item for _, item in self.runs())


class AnImpatientRelay(ALateWriter):
    """The same, but the relay leaves a lane alone whose writer is still at it."""

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        super().prepare(patch)
        patch.setattr(barriers, "PATIENCE_SECONDS", 0.0)


@CONCURRENT
@pytest.mark.parametrize("scenario", [ALateWriter, AnImpatientRelay])
def test_a_commit_that_comes_late_with_a_lower_id_is_never_overtaken(
    explored: Explore, scenario: type[ALateWriter]
) -> None:
    explored(scenario)


class TwoRelays(Streams):
    """Two relays hear of one key, of which another event comes."""

    names = "RSW"
    expected: ClassVar[Any] = frozenset({"RR", "SS", "RS", "SR"})

    def given(self) -> None:
        super().given()
        self.write(self.in_order, "a1")
        self.kicks *= 2

    def parts(self) -> Parts:
        return {
            "R": self.worker,
            "S": self.worker,
            "W": lambda: self.write(self.in_order, "a2"),
        }

    def kind(self) -> str:
        return "".join(name for name, _ in self.runs())


@CONCURRENT
def test_two_relays_publish_each_ordered_event_once_and_forget_none(explored: Explore) -> None:
    explored(TwoRelays)


class ADeadLetter(Streams):
    """A person decides about a dead letter, while a relay looks and its lane gets another event."""

    names = "HRW"
    verb = ""

    def given(self) -> None:
        super().given()
        self.write(self.in_order, "a1")
        self.write(self.in_order, "a2")
        self.dead = self.rows[0]
        self.rows.filter(pk=self.dead.pk).update(status=EventStatus.DEAD)
        self.dead.refresh_from_db()
        self.kicks = self.kicks[:1]

    def parts(self) -> Parts:
        return {"H": self.decide, "R": self.worker, "W": lambda: self.write(self.in_order, "a3")}

    def decide(self) -> None:
        assert getattr(self.dead, self.verb)()

    def set_aside(self) -> set[str]:
        return set() if self.verb == "replay" else {"a1"}


class AReplay(ADeadLetter):
    verb = "replay"


class ASkip(ADeadLetter):
    """Without another event: the lane goes on with what waits."""

    names = "HR"
    preemptions = 2
    verb = "skip"

    def parts(self) -> Parts:
        return {name: part for name, part in super().parts().items() if name in self.names}


class ADiscard(ASkip):
    verb = "discard"


@CONCURRENT
@pytest.mark.parametrize("scenario", [AReplay, ASkip, ADiscard])
def test_a_decision_about_a_dead_letter_brings_its_lane_back_in_order(
    explored: Explore, scenario: type[ADeadLetter]
) -> None:
    explored(scenario)


class TwoDecisions(ADeadLetter):
    """Of two people one replays a dead letter and the other one skips it."""

    names = "HKR"
    may_raise = (IllegalTransition,)
    expected: ClassVar[Any] = frozenset({"replayed", "skipped"})

    def parts(self) -> Parts:
        self.said: dict[str, bool] = {}
        other = self.rows[0]
        return {
            "H": lambda: self.said.update(replayed=self.dead.replay()),
            "K": lambda: self.said.update(skipped=other.skip()),
            "R": self.worker,
        }

    def at_rest(self) -> list[str]:
        left = super().at_rest()
        if sum(self.said.values()) != 1:
            left.append(f"both, or neither, had their way: {self.said}")
        return left

    def set_aside(self) -> set[str]:
        return {"a1"} if self.said["skipped"] else set()

    def kind(self) -> str:
        return "skipped" if self.said["skipped"] else "replayed"


@CONCURRENT
def test_of_two_decisions_about_a_dead_letter_one_counts(explored: Explore) -> None:
    explored(TwoDecisions)


class TwoRelaysWithBatches(Streams):
    """Two relays publish batches, while another event of the kind is written and its hook runs."""

    names = "RSP"
    expected: ClassVar[Any] = frozenset({"R2 S0", "R0 S2"})

    def given(self) -> None:
        super().given()
        self.hooks_die = True
        for item in ("a1", "a2"):
            self.write(self.freeze, item)
        self.hooks_die = False
        self.rows.filter(status=EventStatus.PUBLISHING).update(
            status=EventStatus.WAITING, lease_until=None, run_after="2000-01-01T00:00:00Z"
        )

    def parts(self) -> Parts:
        return {
            "R": self.relay_pool,
            "S": self.relay_pool,
            "P": lambda: self.write(self.freeze, "b1"),
        }

    def relay_pool(self) -> None:
        self.handle((RELAY, {"using": self.using}))

    def lane_of(self, item: str) -> str:
        return ""

    def kind(self) -> str:
        return f"R{len(self.by('R'))} S{len(self.by('S'))}"


class ALostBatch(TwoRelaysWithBatches):
    """One relay believes that the leases of the other one have run out."""

    names = "RS"
    preemptions = 2
    is_swept = True
    may_restart = True  # on MariaDB settling a batch and rescuing it may meet in a circle
    expected: ClassVar[Any] = frozenset({"R2 S0", "R2 S0 again 2", "R0 S2"})

    def parts(self) -> Parts:
        return {"R": self.relay_pool, "S": self.relay_expired}

    def kind(self) -> str:
        again = len(self.by(RECOVERY))
        return super().kind() + (f" again {again}" if again else "")


@CONCURRENT
@pytest.mark.parametrize("scenario", [TwoRelaysWithBatches, ALostBatch])
def test_two_relays_with_batches_repeat_only_what_lost_its_lease(
    explored: Explore, scenario: type[TwoRelaysWithBatches]
) -> None:
    explored(scenario)
