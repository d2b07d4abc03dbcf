"""The outbox in a database and its model, to which the same things happen."""

from __future__ import annotations

from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from jaiminho_celery import execution, registry, tasks
from jaiminho_celery.kicks import RELAY
from jaiminho_celery.states import EventStatus
from parviraptor_celery.settling import settle_alone
from tests.faults.doom import Doom
from tests.faults.machines import InSavepoint
from tests.faults.outbox_hands import OutboxHands
from tests.faults.outbox_model import DEAD, PUBLISHING, WAITING, Event
from tests.faults.outbox_steps import (
    DEATHS,
    DECISIONS,
    FINAL,
    HOOK_DEATHS,
    KEEP_HOURS,
    NAMES,
    NUMBERS,
    RELAY_ROWS,
    SENDS,
    STEPS,
    Dawdle,
    Decide,
    RelayInBetween,
    Send,
)


class OutboxMachine(OutboxHands):
    """Every rule does the same to both; after each one they have to agree in everything."""

    # What the project and people do

    @initialize(steps=st.lists(SENDS, min_size=2, max_size=4))
    def begin(self, steps: list[Send]) -> None:
        self._transact("begin", steps)

    @rule(steps=st.lists(SENDS, min_size=1, max_size=4))
    def send(self, steps: list[Send]) -> None:
        self._transact("send", steps)

    @rule(
        steps=st.lists(STEPS | st.builds(InSavepoint, STEPS), min_size=1, max_size=5),
        is_rolled_back=st.booleans(),
        dies_at=st.none() | HOOK_DEATHS,
    )
    def transaction(
        self, steps: list[Any], is_rolled_back: bool, dies_at: tuple[str, int] | None
    ) -> None:
        if is_rolled_back:
            self._roll_back(steps)
        else:
            name = "transaction" if dies_at is None else f"transaction, dies {dies_at[0]}"
            self._transact(name, steps, Doom(*(dies_at or ())))

    @rule(steps=st.lists(SENDS, min_size=1, max_size=3))
    def long_transaction(self, steps: list[Send]) -> None:
        """Write, let the leases run out before the commit, and let the relay be the first after."""
        self._transact("long transaction", [RelayInBetween(), *steps, Dawdle()])

    @precondition(lambda self: self.model.those(DEAD))
    @rule(decision=DECISIONS)
    def decide(self, decision: Decide) -> None:
        self._transact("decide", [decision])

    # What workers and the broker do

    @precondition(lambda self: self.messages)
    @rule(
        which=NUMBERS,
        luck=st.sampled_from(["good", "good", "repeated", "lost"]),
        dies_at=DEATHS,
    )
    def deliver(self, which: int, luck: str, dies_at: tuple[str, int] | None) -> None:
        self.count(f"deliver, {'and die' if dies_at else luck}")
        number = which % len(self.messages)
        task, about = self.messages[number]
        assert task == RELAY
        lanes = about.get("lanes")
        if luck != "repeated":
            del self.messages[number]
        if luck == "lost":
            self.unattended.update(lanes or [None])
            return
        note(f"  # relay {lanes or 'what has no order'}")

        def model() -> None:
            if lanes:
                self.model.relay_lanes(lanes, RELAY_ROWS)
            else:
                self.model.relay_pool(RELAY_ROWS)

        self._both(lambda: tasks.relay_events.run(**about), model, Doom(*(dies_at or ())))

    @precondition(lambda self: self.messages)
    @rule()
    def deliver_all(self) -> None:
        while self.messages:
            self.deliver(0, luck="good", dies_at=None)

    @precondition(lambda self: self.model.events)
    @rule(
        hours=st.sampled_from([0, 1, 1, 2, 7, 30]),
        then=st.sampled_from(["", "sweep", "sweep", "clean", *NAMES[:3]]),
        dies_at=DEATHS,
    )
    def advance(self, hours: int, then: str = "", dies_at: tuple[str, int] | None = None) -> None:
        """Let hours pass; then let it be swept, cleaned, or a function be forgotten, or known."""
        self.count("advance")
        self._pass_time(hours)
        if then == "sweep":
            self.count("sweep, and die" if dies_at else "sweep")
            self.unattended = set()
            self._both(self._sweep, self._sweep_model, Doom(*(dies_at or ())))
        elif then == "clean":
            before = len(self.model.events)
            self.model.clean(KEEP_HOURS)
            assert tasks.clean_events.run() == before - len(self.model.events)
        elif then:
            self._deploy(then)

    @precondition(lambda self: any(map(self.model.next_of, self.lanes)))
    @rule(lane=st.integers(0, 2), claims=st.integers(1, 2), ends=st.booleans())
    def slow_relay(self, lane: int, claims: int, ends: bool) -> None:
        """Claim an event and sleep over it, while others may claim it; publish it all the same."""
        ready = [name for name in self.lanes if self.model.next_of(name)]
        name = ready[lane % len(ready)]
        first = len(self.slow)
        self._claim_slowly(name)
        if claims > 1:
            self.advance(1, "sweep")
            if self.model.next_of(name):
                self._claim_slowly(name)
        if ends:
            self.slow_relay_ends(first)

    @precondition(lambda self: self.slow)
    @rule(which=NUMBERS)
    def slow_relay_ends(self, which: int) -> None:
        """Publish what was claimed long ago, and record that if it is still ours."""
        self.count("slow relay ends")
        found, event = self.slow.pop(which % len(self.slow))
        note(f"  # event {event.id}, attempt {event.attempt}")
        run = execution.run(found, by_relay=True)
        settle_alone(run, self.using)
        run.announce()
        self.model.doom = Doom()
        self.model.publish(event)
        self.unattended.add(event.lane)

    # What has to be so after each step

    @invariant()
    def they_agree(self) -> None:
        rows = {row["id"]: row for row in self.rows.values()}
        self.the_rows_are_those_of_the_model(rows)
        self.final_rows_are_never_rewritten(rows)
        assert self.calls == self.model.calls
        assert self.told == self.model.signals
        self.what_may_be_published_has_a_nudge_on_its_way()

    def the_rows_are_those_of_the_model(self, rows: dict[int, dict[str, Any]]) -> None:
        model = {pk: _as_in_the_database(event) for pk, event in self.model.events.items()}
        assert {pk: self._as_in_the_model(row) for pk, row in rows.items()} == model
        for pk, row in rows.items():
            self.model.events[pk].moment = row["run_after"]

    def final_rows_are_never_rewritten(self, rows: dict[int, dict[str, Any]]) -> None:
        left = {pk: row for pk, row in self.final.items() if pk in rows}
        assert {pk: rows[pk] for pk in left} == left
        self.final = {pk: row for pk, row in rows.items() if row["status"] in FINAL}

    def what_may_be_published_has_a_nudge_on_its_way(self) -> None:
        nudged = set[str | None]()
        for _, about in self.messages:
            nudged.update(about.get("lanes") or [None])
        assert self._waiting() <= nudged | self.unattended

    def come_to_rest(self) -> None:
        for name in set(self.model.unknown):
            self.model.unknown.discard(name)
            registry._functions.update({f.name: f for f in self.functions.values()})
        self.model.endings = dict.fromkeys(self.model.endings, "")
        for _ in range(3):
            self.advance(100, "sweep")
            while self.messages:
                self.deliver(0, luck="good", dies_at=None)
        self.they_agree()
        assert not self.model.those(PUBLISHING)
        dead = self.model.those(DEAD)
        for event in self.model.those(WAITING):
            assert any(d.lane == event.lane and d.id < event.id for d in dead), event

    def _as_in_the_model(self, row: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": row["status"],
            "errors": row["error_count"],
            "attempt": row["attempt"],
            "due": self.hours(row["run_after"]) or 0,
            "since": self.hours(row["modified_at"]),
            "lease": self.hours(row["lease_until"]),
            "lane": row["lane"],
            "running lane": row["running_lane"],
            "is sent": row["sent_at"] is not None,
        }


def _as_in_the_database(event: Event) -> dict[str, Any]:
    names = ("status", "errors", "attempt", "due", "since", "lease", "lane")
    return {
        **{name: getattr(event, name) for name in names},
        "running lane": event.lane if event.status == PUBLISHING else None,
        "is sent": event.status == EventStatus.SENT,
    }
