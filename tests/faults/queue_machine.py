"""A queue in a database and its model, to which the same things happen."""

from __future__ import annotations

from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from parviraptor_celery import execution, kicks, monitoring, tasks
from parviraptor_celery.settling import settle_alone
from parviraptor_celery.states import CLAIMABLE, JobStatus
from tests.faults.doom import Died, Doom
from tests.faults.machines import InSavepoint
from tests.faults.queue_hands import QueueHands
from tests.faults.queue_model import Job
from tests.faults.queue_steps import (
    DEATHS,
    DECISIONS,
    FATES,
    FINAL,
    JOBS,
    KEEP_HOURS,
    KICK_JOBS,
    LANES,
    LONG_WAIT_HOURS,
    MONITORED_EVERY,
    MOST_ASKED,
    NUMBERS,
    STEPS,
    Decide,
    Enqueue,
)
from tests.testapp.models import Note


class QueueMachine(QueueHands):
    """Every rule does the same to both; after each one they have to agree in everything."""

    # What people and the project do

    @initialize(jobs=st.lists(JOBS, min_size=2, max_size=5))
    def begin(self, jobs: list[Enqueue]) -> None:
        self._transact("begin", jobs)

    @rule(
        steps=st.lists(STEPS | st.builds(InSavepoint, STEPS), min_size=1, max_size=4),
        fate=st.sampled_from(FATES),
    )
    def transaction(self, steps: list[Any], fate: str) -> None:
        self._transact(f"transaction, {fate}", steps, fate)

    @precondition(lambda self: self.model.jobs)
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
        task, arguments = self.messages[number]
        if luck != "repeated":
            del self.messages[number]
        if luck == "lost":
            self.unattended.update(arguments.get("lanes") or self.lanes)
            return
        note(f"  # {task.rpartition('.')[2]} {arguments.get('lanes') or ''}")
        if task == kicks.DISPATCH:
            tasks.dispatch_jobs.run(**arguments)
            return
        with self._dying(*(dies_at or (None, 1))) as crash:
            tasks.process_jobs.run(**arguments)
        self.model.doom = Doom(*(dies_at or ()))
        try:
            self.model.work(arguments.get("lanes") or [], KICK_JOBS)
        except Died:
            self.unattended.update(self.lanes)
            assert crash.has_happened
        else:
            assert not crash.has_happened

    @precondition(lambda self: self.messages)
    @rule()
    def deliver_all(self) -> None:
        while self.messages:
            self.deliver(0, luck="good", dies_at=None)

    @precondition(lambda self: self.model.jobs)
    @rule(
        hours=st.sampled_from([0, 1, 1, 2, 7, 30]),
        then=st.sampled_from(["", "sweep", "sweep, and die", "clean"]),
    )
    def advance(self, hours: int, then: str = "") -> None:
        self.count("advance")
        idle = [lane for lane in self.lanes if self.model.next_of(lane) is None]
        self.set_forward(hours)
        self.unattended.update(lane for lane in idle if self.model.next_of(lane))
        if then == "clean":
            before = len(self.model.jobs)
            self.model.clean(KEEP_HOURS)
            assert tasks.clean_jobs.run() == before - len(self.model.jobs)
        elif then:
            self._sweep(dies=then == "sweep, and die")

    @precondition(lambda self: any(map(self.model.next_of, self.lanes)))
    @rule(lane=LANES, claims=st.integers(1, 2), end=st.sampled_from(["later", "run", "hand back"]))
    def slow_worker(self, lane: int, claims: int, end: str) -> None:
        """Claim a job and sleep over it, while others may claim it; run it all the same."""
        ready = [name for name in self.lanes if self.model.next_of(name)]
        self._claim_slowly(ready[lane % len(ready)])
        first = len(self.slow) - 1
        if claims > 1:
            self.advance(1, "sweep")
            if self.model.next_of(self.slow[first][1].lane):
                self._claim_slowly(self.slow[first][1].lane)
        if end != "later":
            self.slow_worker_ends(first, hands_back=end == "hand back")

    @precondition(lambda self: self.slow)
    @rule(which=NUMBERS, hands_back=st.booleans())
    def slow_worker_ends(self, which: int, hands_back: bool) -> None:
        """Run a job that was claimed long ago, or hand it back; record that if it is still ours."""
        self.count("slow worker hands back" if hands_back else "slow worker ends")
        found, job = self.slow.pop(which % len(self.slow))
        note(f"  # job {job.id}, attempt {job.attempt}")
        if hands_back:
            is_ours = self.model.is_as(job)
            if is_ours:
                self.model.wait(job)
            assert found.update_job_for_being_resumed() == is_ours
            return
        run = execution.run(found)
        if not run.is_settled:
            settle_alone(run, self.using)
        run.announce()
        self.model.doom = Doom()
        self.model.run(job)
        self.unattended.add(job.lane)

    # What has to be so after each step

    @invariant()
    def they_agree(self) -> None:
        rows = {row["id"]: row for row in self.rows.values()}
        self.the_rows_are_those_of_the_model(rows)
        self.at_most_one_job_of_a_lane_is_processing(rows)
        self.final_rows_are_never_rewritten(rows)
        self.the_bodies_were_those_of_the_model_in_its_order()
        self.what_may_run_has_a_kick_on_its_way()
        self.why_is_true()
        if next(self.agreed) % MONITORED_EVERY == 0:
            self.monitoring_counts_what_the_model_does()

    def the_rows_are_those_of_the_model(self, rows: dict[int, dict[str, Any]]) -> None:
        model = {pk: _as_in_the_database(job) for pk, job in self.model.jobs.items()}
        assert {pk: self._as_in_the_model(row) for pk, row in rows.items()} == model

    def at_most_one_job_of_a_lane_is_processing(self, rows: dict[int, dict[str, Any]]) -> None:
        running = [row["lane"] for row in rows.values() if row["status"] == JobStatus.PROCESSING]
        assert not self.kind.has_lanes or len(running) == len(set(running))

    def final_rows_are_never_rewritten(self, rows: dict[int, dict[str, Any]]) -> None:
        left = {pk: row for pk, row in self.final.items() if pk in rows}
        assert {pk: rows[pk] for pk in left} == left
        self.final = {pk: row for pk, row in rows.items() if row["status"] in FINAL}

    def the_bodies_were_those_of_the_model_in_its_order(self) -> None:
        texts = Note.objects.using(self.using).order_by("id").values_list("text", flat=True)
        assert [int(text.split()[1]) for text in texts] == self.model.effects

    def what_may_run_has_a_kick_on_its_way(self) -> None:
        kicked = set[str | None]()
        for _, arguments in self.messages:
            kicked.update(arguments.get("lanes") or self.lanes)
        waiting = {lane for lane in self.lanes if self.model.next_of(lane)}
        assert waiting <= kicked | self.unattended

    def why_is_true(self) -> None:
        jobs = list(self.model.jobs.values())
        for _ in range(min(MOST_ASKED, len(jobs))):
            job = jobs[next(self.questions) % len(jobs)]
            reason = self.rows.get(pk=job.id).why()
            assert (reason.code, reason.job_id) == self.model.why(job), (job.id, str(reason))

    def monitoring_counts_what_the_model_does(self) -> None:
        health = monitoring.health(self.queue)
        long_ago = self.model.now - LONG_WAIT_HOURS
        unprocessed = [
            job
            for job in self.model.those(JobStatus.NEW)
            if job.created < long_ago + 1 and (job.due < long_ago + 1 or job.errors)
        ]
        running = self.model.those(JobStatus.PROCESSING)
        assert (
            health.failed,
            health.long_processing,
            health.long_unprocessed,
            health.paused,
            health.is_paused,
        ) == (
            len(self.model.those(JobStatus.FAILED)),
            sum(job.since < self.model.now for job in running),
            len(unprocessed),
            len(self.model.pauses),
            "" in self.model.pauses,
        )
        [(_, counts)] = monitoring.open_entries()
        assert counts == {status: len(self.model.those(JobStatus(status))) for status in counts}

    def come_to_rest(self) -> None:
        """Let everything succeed from now on, and see it end where the model says."""
        open_jobs = self.model.those(*CLAIMABLE, JobStatus.PROCESSING, JobStatus.FAILED)
        self.rows.filter(pk__in=[job.id for job in open_jobs]).update(script="")
        for job in open_jobs:
            job.script = ""
        for name in ["", *filter(None, self.lanes)]:
            self._set_pause(name, "resume")
        for _ in range(3):
            self.advance(100, "sweep")
            while self.messages:
                self.deliver(0, luck="good", dies_at=None)
        self.they_agree()
        left = self.model.those(*CLAIMABLE, JobStatus.PROCESSING)
        assert all(self.model.obstacle(job) for job in left), left

    def _as_in_the_model(self, row: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": row["status"],
            "errors": row["error_count"],
            "attempt": row["attempt"],
            "deaths": row["worker_deaths"],
            "results": row["result"] or 0,
            "cause": row["failed_by"],
            "due": self.hours(row["run_after"]) or 0,
            "since": self.hours(row["modification_date"]),
            "lease": self.hours(row["lease_until"]),
            "waiting key": row["waiting_key"],
            "running lane": row["running_lane"],
            "lane": row["lane"],
        }


def _as_in_the_database(job: Job) -> dict[str, Any]:
    names = ("status", "errors", "attempt", "deaths", "results", "cause", "due", "since", "lease")
    return {
        **{name: getattr(job, name) for name in names},
        "waiting key": job.key if job.status in CLAIMABLE else None,
        "running lane": job.lane if job.status == JobStatus.PROCESSING else None,
        "lane": job.lane,
    }
