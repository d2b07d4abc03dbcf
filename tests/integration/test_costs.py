"""What a job costs: statements, commits and messages, counted on each engine.

PostgreSQL settles a job and takes the next one in one statement, which is a transaction by
itself. The others need a transaction for both, and a statement for each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from parviraptor_celery import sweep
from parviraptor_celery.dispatch import run_lanes, run_pool
from parviraptor_celery.drains import Budget
from tests.testapp.models import AtomicJob, FreeJob, LaneJob

JOBS = 50


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is published; these tests are the workers themselves."""
    sent: list[dict[str, Any]] = []

    def kick(task: str, **arguments: Any) -> bool:
        sent.append(arguments)
        return True

    monkeypatch.setattr("parviraptor_celery.broker.kick", kick)
    for queue in (LaneJob, FreeJob, AtomicJob):
        monkeypatch.setattr(queue, "process", lambda _: None)
    return sent


@dataclass
class Cost:
    """Statements (without those that begin and end transactions), commits and messages."""

    statements: int = 0
    commits: int = 0
    messages: int = 0
    sql: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(line[:200] for line in [*self.sql[:20], "…", *self.sql[-10:]])


@contextmanager
def counted(using: str, published: list[Any]) -> Iterator[Cost]:
    cost, before = Cost(), len(published)
    with CaptureQueriesContext(connections[using]) as queries:
        yield cost
    cost.sql = [query["sql"] for query in queries.captured_queries]
    within = False
    for sql in cost.sql:
        word = sql.split()[0].rstrip(";")
        if word in ("BEGIN", "START"):
            within = True
        elif word in ("COMMIT", "ROLLBACK"):
            cost.commits += 1
            within = False
        else:
            cost.statements += 1
            cost.commits += not within and word not in ("SELECT", "SAVEPOINT", "RELEASE")
    cost.messages = len(published) - before


def expect(cost: Cost, statements: int, commits: int, messages: int) -> None:
    found = (cost.statements, cost.commits, cost.messages)
    assert found == (statements, commits, messages), str(cost)


def by_engine(using: str, postgresql: Any, mariadb: Any, sqlite: Any) -> Any:
    return {"postgresql": postgresql, "mariadb": mariadb, "default": sqlite}[using]


@pytest.fixture
def lanes(using: str) -> Any:
    """Make so many lanes of so many jobs, after one run that warms everything up."""

    def make(count: int, jobs: int, queue: Any = LaneJob) -> list[str]:
        created = queue.enqueue_many(
            [queue(shop=str(shop)) for _ in range(jobs) for shop in range(count)], using=using
        )
        return sorted({job.lane for job in created})

    for queue in (LaneJob, AtomicJob):
        run_lanes(queue, using, make(1, 2, queue), Budget.endless())
    return make


class TestEnqueueing:
    def test_one_job_of_a_lane(self, using: str, published: list[Any]) -> None:
        with counted(using, published) as cost:
            LaneJob.enqueue(using=using)
        # PostgreSQL's INSERT tells that nobody is there; the others are asked after the commit.
        expect(cost, by_engine(using, 1, 2, 2), commits=1, messages=1)

    def test_one_independent_job(self, using: str, published: list[Any]) -> None:
        FreeJob.enqueue(using=using)
        with counted(using, published) as cost:
            FreeJob.enqueue(using=using)
        expect(cost, by_engine(using, 1, 2, 2), commits=1, messages=1)

    def test_in_a_transaction_the_look_comes_after_the_commit(
        self, using: str, published: list[Any]
    ) -> None:
        for queue in (LaneJob, FreeJob):
            with counted(using, published) as cost, transaction.atomic(using=using):
                queue.enqueue(using=using, **({"shop": "new"} if queue is LaneJob else {}))
            expect(cost, statements=2, commits=1, messages=1)

    def test_behind_a_backlog_an_independent_job_is_kicked_by_nobody(
        self, using: str, published: list[Any]
    ) -> None:
        FreeJob.enqueue_many([FreeJob() for _ in range(10)], using=using)
        with counted(using, published) as cost:
            FreeJob.enqueue(using=using)
        expect(cost, statements=2, commits=1, messages=0)

    def test_behind_one_that_waits_it_is_kicked_by_nobody(
        self, using: str, published: list[Any]
    ) -> None:
        LaneJob.enqueue(using=using)
        with counted(using, published) as cost:
            LaneJob.enqueue(using=using)
        expect(cost, statements=2, commits=1, messages=0)

    def test_ten_jobs_of_a_lane_in_the_callers_transaction_cost_one_look(
        self, using: str, published: list[Any]
    ) -> None:
        with counted(using, published) as cost, transaction.atomic(using=using):
            for _ in range(10):
                LaneJob.enqueue(using=using)
        expect(cost, statements=11, commits=1, messages=1)

    @pytest.mark.parametrize("queue", [LaneJob, FreeJob])
    def test_a_thousand_at_once(self, using: str, published: list[Any], queue: Any) -> None:
        jobs = [queue() for _ in range(1000)]
        with counted(using, published) as cost:
            queue.enqueue_many(jobs, using=using)
        if using == "default":  # takes only so many parameters in a statement
            assert cost.statements < 30, str(cost)
        else:
            assert cost.statements == 1, str(cost)
        assert (cost.commits, cost.messages) == (1, 1 if queue is LaneJob else 10)

    def test_more_than_fit_into_one_statement_take_several_of_one_transaction(
        self, using: str, published: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("parviraptor_celery.jobs.MOST_ROWS_PER_INSERT", 3)
        with counted(using, published) as cost:
            FreeJob.enqueue_many([FreeJob() for _ in range(7)], using=using)
        inserts = [sql for sql in cost.sql if sql.startswith("INSERT")]
        assert (len(inserts), cost.commits) == (3, 1), str(cost)
        assert FreeJob.rows(using).count() == 7


class TestWorkingOff:
    def test_a_lane(self, using: str, published: list[Any], lanes: Any) -> None:
        [lane] = lanes(1, JOBS)
        with counted(using, published) as cost:
            assert run_lanes(LaneJob, using, [lane], Budget.endless()).rows == JOBS
        # The first look and claim (PostgreSQL: in one), and the looks at both kinds of what waits
        # in the end. On the others each job but the last has a look, a lock (not SQLite), an end
        # and a claim.
        statements = by_engine(using, JOBS + 3, 4 * (JOBS - 1) + 7, 3 * (JOBS - 1) + 7)
        expect(cost, statements, commits=JOBS + 1, messages=0)
        if using == "postgresql":
            assert not [sql for sql in cost.sql if sql.startswith(("BEGIN", "COMMIT"))]

    def test_a_hundred_lanes(self, using: str, published: list[Any], lanes: Any) -> None:
        names = lanes(100, 2)
        with counted(using, published) as cost:
            assert run_lanes(LaneJob, using, names, Budget.endless()).rows == 200
        per_lane = by_engine(using, 5, 11, 10)
        expect(cost, per_lane * 100, commits=300, messages=0)

    def test_an_independent_batch(self, using: str, published: list[Any]) -> None:
        run_pool(FreeJob, using, Budget.endless())  # once in a process: is there a table of pauses?
        FreeJob.enqueue_many([FreeJob() for _ in range(JOBS)], using=using)
        del published[:]
        with counted(using, published) as cost:
            assert run_pool(FreeJob, using, Budget.endless()).rows == JOBS
        # Batches of 10, 20 and 20, and a look that finds nothing: each in a transaction, in which
        # the first of the batch begins; but PostgreSQL takes the first batch by one statement.
        expect(cost, by_engine(using, JOBS + 12, 2 * JOBS + 12, 2 * JOBS + 12), JOBS + 4, 0)
        if using == "postgresql":
            assert sum(sql.startswith("BEGIN") for sql in cost.sql) == 3, str(cost)

    def test_an_atomic_queue(self, using: str, published: list[Any], lanes: Any) -> None:
        names = lanes(1, JOBS, AtomicJob)
        with counted(using, published) as cost:
            assert run_lanes(AtomicJob, using, names, Budget.endless()).rows == JOBS
        # The look for the next, the claim, and the end together with what the body writes.
        # On PostgreSQL the first look is the claim, too.
        statements = 3 * JOBS + by_engine(using, 1, 2, 2)
        expect(cost, statements, commits=2 * JOBS, messages=0)

    def test_a_temporary_failure(
        self, using: str, published: list[Any], lanes: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(LaneJob, "process", lambda job: job.raise_temporary_failure("later"))
        [lane] = lanes(1, 1)
        with counted(using, published) as cost:
            assert run_lanes(LaneJob, using, [lane], Budget.endless()).rows == 1
        # Look, claim, put back; and the look at both kinds of what waits.
        expect(cost, by_engine(using, 4, 5, 5), commits=2, messages=0)


class TestForNothing:
    def test_a_kick_of_an_empty_lane(self, using: str, published: list[Any], lanes: Any) -> None:
        [lane] = lanes(1, 1)
        run_lanes(LaneJob, using, [lane], Budget.endless())
        with counted(using, published) as cost:
            run_lanes(LaneJob, using, [lane], Budget.endless())
        # On PostgreSQL the first look may claim, and counts as a commit, though it writes nothing.
        expect(cost, statements=2, commits=by_engine(using, 1, 0, 0), messages=0)

    def test_a_kick_of_a_running_lane(self, using: str, published: list[Any], lanes: Any) -> None:
        [lane] = lanes(1, 2)
        assert LaneJob.rows(using).candidate(lane, "NEW").claim()
        with counted(using, published) as cost:
            run_lanes(LaneJob, using, [lane], Budget.endless())
        expect(cost, statements=1, commits=by_engine(using, 1, 0, 0), messages=0)

    def test_a_kick_of_an_empty_independent_queue(self, using: str, published: list[Any]) -> None:
        run_pool(FreeJob, using, Budget.endless())
        with counted(using, published) as cost:
            run_pool(FreeJob, using, Budget.endless())
        # On PostgreSQL the first looks may claim by themselves; the last one has a transaction.
        expect(cost, by_engine(using, 2, 3, 3), commits=by_engine(using, 2, 1, 1), messages=0)

    @pytest.mark.parametrize("queue", [LaneJob, FreeJob])
    def test_a_sweep_of_an_empty_queue(self, using: str, published: list[Any], queue: Any) -> None:
        queue.rows(using).variant()  # which tables there are is asked once
        sweep.rescue(queue, using)
        with counted(using, published) as cost:
            sweep.rescue(queue, using)
            if queue is LaneJob:
                sweep.adopt(queue, using)
                sweep.kick_lanes(queue, using, "")
            else:
                sweep.kick_waiting(queue, using)
        expect(cost, statements=5 if queue is LaneJob else 4, commits=1, messages=0)
