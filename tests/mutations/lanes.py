"""The order of lanes, and that one worker at a time has a row."""

from __future__ import annotations

from .mutation import Mutation

LANES = "tests/integration/test_lanes.py"
POLICIES = "tests/integration/test_failure_policies.py"
INTERLEAVINGS = "tests/integration/test_interleavings.py"
IN_A_BODY = "tests/integration/test_dependent_fields_in_a_body.py"

MUTATIONS = [
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
        "lane-set-by-a-body",
        "parviraptor_celery/execution.py",
        "            refuse_another_lane(job, before)\n",
        "            pass\n",
        IN_A_BODY,
    ),
    Mutation(
        "lane-set-by-a-body-that-failed",
        "parviraptor_celery/execution.py",
        "if not isinstance(outcome, Failed):",
        "if True:",
        IN_A_BODY,
    ),
    Mutation(
        "lane-saved-by-a-body",
        "parviraptor_celery/guarded.py",
        "        refuse_another_lane(self, self._as_begun)\n",
        "",
        IN_A_BODY,
    ),
    Mutation(
        "lane-of-before-a-deploy",
        "parviraptor_celery/lanes.py",
        "    if not dependents_of(job).items() <= before.items():",
        "    if job.dependent_fields:",
        IN_A_BODY,
    ),
    Mutation(
        "atomic-undo",
        "parviraptor_celery/execution.py",
        "if not isinstance(finished.outcome, Processed):",
        "if False:",
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
