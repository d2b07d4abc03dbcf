"""Pauses, squashing, unique keys, outcomes, and the reasons why a job waits."""

from __future__ import annotations

from .mutation import Mutation

PAUSES = "tests/integration/test_pauses.py"
REASONS = "tests/integration/test_reasons.py"
SQUASHING = "tests/integration/test_squashing.py"
KEYS = "tests/integration/test_unique_keys.py"
OUTCOMES = "tests/integration/test_outcomes.py"
RENAMED = "tests/integration/test_renamed_queues.py"
LANES = "tests/integration/test_lanes.py"

MUTATIONS = [
    Mutation(
        "rows-of-one-insert",
        "parviraptor_celery/jobs.py",
        "bulk_create(new, batch_size=MOST_ROWS_PER_INSERT)",
        "bulk_create(new)",
        "tests/integration/test_costs.py",
    ),
    Mutation(
        "pauses-of-nobody-are-told",
        "parviraptor_celery/database_checks.py",
        "if label not in known",
        "if False",
        PAUSES,
    ),
    Mutation(
        "renamed-queue",
        "parviraptor_celery/indexes.py",
        "            self.table = table",
        "            pass",
        RENAMED,
    ),
    Mutation(
        "status-by-hand-is-dated",
        "parviraptor_celery/guarded.py",
        'if "status" in names and self.STAMP not in names:',
        "if False:",
        LANES,
    ),
    Mutation(
        "status-of-many-is-dated",
        "parviraptor_celery/querysets.py",
        '            columns.setdefault("modification_date", now())',
        "            pass",
        LANES,
    ),
    Mutation(
        "pause-of-a-lane",
        "parviraptor_celery/dispatch.py",
        "if head is not None and head.is_paused:",
        "if False:",
        PAUSES,
    ),
    Mutation(
        "pause-of-a-lane-of-deferred",
        "parviraptor_celery/dispatch.py",
        "if deferred is None or deferred.is_paused:",
        "if deferred is None:",
        PAUSES,
    ),
    Mutation(
        "pause-of-a-pool",
        "parviraptor_celery/pool_querysets.py",
        "self.waiting().filter(~self.paused(), **when)",
        "self.waiting().filter(**when)",
        PAUSES,
    ),
    Mutation(
        "pause-of-a-pool-of-deferred",
        "parviraptor_celery/querysets.py",
        "self.filter(~self.paused(), status=Literal(JobStatus.DEFERRED))",
        "self.filter(status=Literal(JobStatus.DEFERRED))",
        PAUSES,
    ),
    Mutation(
        "pause-and-hand-off",
        "parviraptor_celery/claims.py",
        " AND NOT is_paused)",
        ")",
        PAUSES,
    ),
    Mutation(
        "pause-and-sweep",
        "parviraptor_celery/querysets.py",
        "for lane, pk in heads.items() if lane not in paused})",
        "for lane, pk in heads.items()})",
        PAUSES,
    ),
    Mutation(
        "pause-without-table",
        "parviraptor_celery/pool_querysets.py",
        "return pauses.can_be_made(self.db)",
        "return None",
        PAUSES,
    ),
    Mutation(
        "why-asks-about-the-route",
        "parviraptor_celery/consumers.py",
        "app.amqp.router.route({}, kicks.PROCESS, args=(), kwargs=arguments)",
        "{}",
        REASONS,
    ),
    Mutation(
        "resume-wakes",
        "parviraptor_celery/pauses.py",
        "transaction.on_commit(lambda: _wake(queue, alias, lane), using=alias, robust=True)",
        "pass",
        PAUSES,
    ),
    Mutation(
        "cancel-kicks",
        "parviraptor_celery/decided.py",
        "kicks.on_commit(self, self.alias)\n"
        "            return self.move(JobStatus.IGNORED)\n\n"
        "    def delete(",
        "return self.move(JobStatus.IGNORED)\n\n    def delete(",
        PAUSES,
    ),
    Mutation(
        "cancel-frees-key",
        "parviraptor_celery/keyed.py",
        'return super().move(to, **columns | {"waiting_key": None})',
        "return super().move(to, **columns)",
        PAUSES,
    ),
    Mutation(
        "squash-locks",
        "parviraptor_celery/squashing.py",
        "if newest is None or not rows.are_waiting_locked({head.pk, newest}):",
        "if newest is None:",
        SQUASHING,
    ),
    Mutation(
        "squash-before-hand-off",
        "parviraptor_celery/execution.py",
        "if self.row.SQUASH_WAITING_JOBS:",
        "if False:",
        SQUASHING,
    ),
    Mutation(
        "squash-not-past-a-failed-job",
        "parviraptor_celery/querysets.py",
        "waiting = waiting.filter(id__lt=obstacle)",
        "pass",
        SQUASHING,
    ),
    Mutation(
        "newest-of-a-key-waits",
        "parviraptor_celery/keyed.py",
        "if holder is not None and holder > self.pk:",
        "if holder is not None:",
        KEYS,
    ),
    Mutation(
        "lost-lease-supersedes-nobody",
        "parviraptor_celery/keyed.py",
        "        if not is_done:\n",
        "        if False:\n",
        KEYS,
    ),
    Mutation(
        "key-looked-for-again",
        "parviraptor_celery/keyed.py",
        "if attempt == ATTEMPTS or not is_taken(error, type(self)):",
        "if True:",
        KEYS,
    ),
    Mutation(
        "stale-object-leaves-key",
        "parviraptor_celery/guarded.py",
        'follows = {"waiting_key"} if {"status", "unique_key"} & set(names) else set()',
        'follows = {"waiting_key"}',
        KEYS,
    ),
    Mutation(
        "superseded-comes-not-back",
        "parviraptor_celery/execution.py",
        "self.outcome, self.pause = Superseded(self.row.error_message), None",
        "pass",
        KEYS,
    ),
    Mutation(
        "unprocessable-in-a-row",
        "parviraptor_celery/pool_feed.py",
        "self.is_paused = self.unprocessable_in_a_row >= MOST_UNPROCESSABLE",
        "self.is_paused = run.pauses_pool",
        OUTCOMES,
    ),
    Mutation(
        "why-about-to-be-squashed",
        "parviraptor_celery/reasons.py",
        "if job.SQUASH_WAITING_JOBS and may_run and job.pk < head.pk:",
        "if False:",
        REASONS,
    ),
    Mutation(
        "why-deferred-before-failed",
        "parviraptor_celery/reasons.py",
        "head.is_due and head.held_by is None\n    if job.SQUASH",
        "head.is_due\n    if job.SQUASH",
        REASONS,
    ),
]
