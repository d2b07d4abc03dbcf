"""The order of lanes, and that one worker at a time has a row."""

from __future__ import annotations

from .mutation import Mutation

LANES = "tests/integration/test_lanes.py"
POLICIES = "tests/integration/test_failure_policies.py"
INTERLEAVINGS = "tests/integration/test_interleavings.py"
FIRST_CLAIMS = "tests/integration/test_first_claims.py"

MUTATIONS = [
    Mutation(
        "first-claim-of-a-lane-that-runs",
        "parviraptor_celery/first_claims.py",
        "AND NOT is_paused AND NOT lane_is_running)",
        "AND NOT is_paused)",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-claim-while-paused",
        "parviraptor_celery/first_claims.py",
        "AND NOT is_paused AND NOT lane_is_running)",
        "AND NOT lane_is_running)",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-claim-behind-a-failed-job",
        "parviraptor_celery/first_claims.py",
        "WHERE is_due AND held_by IS NULL",
        "WHERE is_due",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-claim-before-its-time",
        "parviraptor_celery/first_claims.py",
        "WHERE is_due AND held_by IS NULL",
        "WHERE held_by IS NULL",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-claim-compares-both-kinds",
        "parviraptor_celery/first_claims.py",
        "AND NOT EXISTS (SELECT 1 FROM due)",
        "AND true",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-claim-passes-locked-rows",
        "parviraptor_celery/first_claims.py",
        " FOR UPDATE SKIP LOCKED",
        " FOR UPDATE",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-claim-lost-in-a-lane",
        "parviraptor_celery/dispatch.py",
        "again=lambda: first_claims.claim_head_again(self.rows, self.lane),",
        "again=lambda: first_claims.claim_head(self.rows, self.lane),",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-claim-lost-of-a-batch",
        "parviraptor_celery/dispatch.py",
        "again=lambda: first_claims.claim_batch_again(self.rows, limit),",
        "again=lambda: first_claims.claim_batch(self.rows, limit),",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-claim-of-what-ran-already",
        "parviraptor_celery/first_claims.py",
        "if row is None or _has_begun(row):",
        "if row is None:",
        FIRST_CLAIMS,
    ),
    Mutation(
        "first-batch-of-what-ran-already",
        "parviraptor_celery/first_claims.py",
        "for row in rows.held_here() if not _has_begun(row)]",
        "for row in rows.held_here()]",
        FIRST_CLAIMS,
    ),
    Mutation(
        "fence",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.claimed_pk, "status": status, "attempt": self.token}',
        'return {"pk": self.claimed_pk}',
        f"{INTERLEAVINGS}::TestTheFence",
    ),
    Mutation(
        "fence-of-attempts",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.claimed_pk, "status": status, "attempt": self.token}',
        'return {"pk": self.claimed_pk, "status": status}',
        f"{INTERLEAVINGS}::TestTheFence",
    ),
    Mutation(
        "fence-of-a-batch",
        "parviraptor_celery/fencing.py",
        "table = cls.rows(using).filter(status=cls.LEASED, attempt=attempt)",
        "table = cls.rows(using).filter(status=cls.LEASED)",
        f"{INTERLEAVINGS}::TestTheFence",
    ),
    Mutation(
        "fence-of-save",
        "parviraptor_celery/guarded.py",
        "if columns and not self.held().update(**columns):",
        "if columns and not self.rows(self.alias).filter(pk=self.pk).update(**columns):",
        f"{INTERLEAVINGS}::TestTheFence",
    ),
    Mutation(
        "unique",
        "parviraptor_celery/fencing.py",
        '"attempt": self.attempt + 1, "running_lane": self.lane}',
        '"attempt": self.attempt + 1, "running_lane": None}',
        f"{INTERLEAVINGS}::TestTheUniqueLane",
    ),
    Mutation(
        "unique-after-a-hand-off",
        "parviraptor_celery/handoff.py",
        '"running_lane": ANY_LANE, ',
        "",
        f"{INTERLEAVINGS}::TestTheUniqueLane",
    ),
    Mutation(
        "look-after-commit",
        "parviraptor_celery/drains.py",
        "if row is None and not report.is_exhausted:",
        "if False:",
        f"{INTERLEAVINGS}::TestTheLookAfterTheCommit",
    ),
    Mutation(
        "hand-off-locks-both-rows-first",
        "parviraptor_celery/lane_feed.py",
        "self.rows.lock([run.row.pk, successor.pk])",
        "pass",
        f"{INTERLEAVINGS}::TestAFinisherAndACompetingKick",
    ),
    Mutation(
        "update-by-the-primary-key",
        "parviraptor_celery/statements.py",
        'table += " FORCE INDEX (PRIMARY)"',
        "pass",
        f"{INTERLEAVINGS}::TestAFinisherAndACompetingKick",
    ),
    Mutation(
        "lane-head-by-range",
        "parviraptor_celery/leased.py",
        'same_lane = {"lane__gte": lane, "lane__lte": lane}',
        'same_lane = {"lane": lane}',
        LANES,
    ),
    Mutation(
        "resolved-expressions",
        "parviraptor_celery/statements.py",
        "expression.resolve_expression(compiler.query, allow_joins=False, for_save=True)",
        "expression",
        LANES,
    ),
    Mutation(
        "unbegun-pay-nothing",
        "parviraptor_celery/sweep.py",
        "job.worker_deaths + (job.begun_at is not None)",
        "job.worker_deaths + 1",
        LANES,
    ),
    Mutation(
        "failing-makes-room",
        "parviraptor_celery/dispatch.py",
        "self.comes_back = count == FAIL_CHUNK",
        "pass",
        POLICIES,
    ),
    Mutation(
        "turns-are-counted",
        "parviraptor_celery/drains.py",
        "            budget.spend(1)\n",
        "",
        POLICIES,
    ),
    Mutation(
        "hold-lane-and-sweep",
        "parviraptor_celery/querysets.py",
        "return self._not_parked(heads, lanes)",
        "return lanes",
        POLICIES,
    ),
    Mutation(
        "go-on",
        "parviraptor_celery/querysets.py",
        "if self.model.FAILURE_POLICY is FailurePolicy.GO_ON:",
        "if False:",
        POLICIES,
    ),
    Mutation(
        "atomic-undo",
        "parviraptor_celery/execution.py",
        "if not isinstance(finished.outcome, Processed) or not finished.settle():",
        "if not finished.settle():",
        LANES,
    ),
    Mutation(
        "dependents-fail",
        "parviraptor_celery/lane_feed.py",
        "if row.held_by is not None:",
        "if False:",
        "tests/unit/parviraptor",
    ),
]
