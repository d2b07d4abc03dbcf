"""Deaths, and answers that were lost, at each step."""

from __future__ import annotations

from .mutation import Mutation

_ANY_STEP = "test_a_death_or_a_lost_answer_at_any_step_breaks_no_promise"
DEATHS = f"tests/integration/test_crash_enumeration.py::{_ANY_STEP}"
OUTBOX_DEATHS = f"tests/integration/test_crash_enumeration_outbox.py::{_ANY_STEP}"

MUTATIONS = [
    Mutation(
        "claim-unanswered",
        "parviraptor_celery/lane_feed.py",
        "                again=_repeatable_claim(row, row.claim_again),\n",
        "",
        f"{DEATHS}[postgresql-hand-off]",
    ),
    Mutation(
        "hand-off-unanswered",
        "parviraptor_celery/lane_feed.py",
        "        run.settle_again()\n        row = self.rows.read_held",
        "        run.settle_again()\n        return None\n        row = self.rows.read_held",
        f"{DEATHS}[postgresql-hand-off]",
    ),
    Mutation(
        "settlement-unanswered",
        "parviraptor_celery/settling.py",
        "alone(using, run.settle, again=run.settle_again)",
        "alone(using, run.settle)",
        f"{DEATHS}[postgresql-back-off]",
    ),
    Mutation(
        "batch-unanswered",
        "parviraptor_celery/pool_feed.py",
        "return self.prepare(rows) if rows else self._lease_chosen(choose)",
        "return self._lease_chosen(choose)",
        f"{DEATHS}[postgresql-pool]",
    ),
    Mutation(
        "atomic-unanswered",
        "parviraptor_celery/execution.py",
        "if finished.is_recorded and _is_committed_after_all(job):",
        "if False:",
        f"{DEATHS}[postgresql-atomic]",
    ),
    Mutation(
        "hand-back-unanswered",
        "parviraptor_celery/jobs.py",
        "alone(self.alias, self.put_back, again=self._put_back_again)",
        "self.put_back()",
        f"{DEATHS}[postgresql-resume]",
    ),
    Mutation(
        "lost-by-psycopg",
        "parviraptor_celery/database.py",
        'str(cause.sqlstate or "08")',
        'str(cause.sqlstate or "")',
        "tests/unit/parviraptor/test_database.py",
    ),
    Mutation(
        "identity-of-a-thread",
        "parviraptor_celery/leases.py",
        "_of_this_thread = threading.local()",
        '_of_this_thread = type("Shared", (), {})()',
        "tests/integration/test_lost_answers.py",
    ),
    Mutation(
        "outbox-settlement-unanswered",
        "jaiminho_celery/execution.py",
        "self.settle() or self.row.has_come_to(self._end())",
        "self.settle()",
        f"{OUTBOX_DEATHS}[postgresql-dead-letter]",
    ),
    Mutation(
        "messages-unanswered",
        "jaiminho_celery/batches.py",
        "            again=lambda: Event.settle_together_again(events, self.using, columns),\n",
        "",
        "tests/integration/test_crash_enumeration_outbox.py"
        "::test_a_death_repeats_one_batch_of_messages_at_most[postgresql-messages-relay-redis]",
    ),
    Mutation(
        "settled-before-published",
        "jaiminho_celery/execution.py",
        "        _publish(attempt)\n        if undo_left_open",
        "        attempt.settle()\n        _publish(attempt)\n        if undo_left_open",
        f"{OUTBOX_DEATHS}[sqlite-on-commit]",
    ),
    Mutation(
        "born-with-a-lease-that-ends",
        "jaiminho_celery/strategies.py",
        "event.lease_until = from_now(settings.LEASE_SECONDS)",
        "event.lease_until = from_now(settings.LEASE_SECONDS * 1_000_000)",
        f"{OUTBOX_DEATHS}[sqlite-on-commit]",
    ),
    Mutation(
        "body-and-completion-together",
        "parviraptor_celery/execution.py",
        "return _run_atomically(job) if job.atomic else _run_body(job)",
        "return _run_body(job)",
        f"{DEATHS}[sqlite-atomic]",
    ),
    Mutation(
        "look-after-the-settlement",
        "parviraptor_celery/drains.py",
        "if row is None and not report.is_exhausted:",
        "if False:",
        f"{DEATHS}[sqlite-atomic]",
    ),
    Mutation(
        "not-begun-pays-nothing",
        "parviraptor_celery/sweep.py",
        "(job.begun_at is not None)",
        "1",
        f"{DEATHS}[sqlite-pool]",
    ),
    Mutation(
        "worker-asks-for-sweeps",
        "parviraptor_celery/worker.py",
        "worker.timer.call_repeatedly(interval, broker.kick, args=(task,), kwargs=kwargs)",
        "return",
        "tests/e2e/test_nodes.py",
    ),
    Mutation(
        "sweep-rescues-the-jobs-of-the-dead",
        "parviraptor_celery/sweep.py",
        "    rescue(queue, using)\n    if queue",
        "    if queue",
        "tests/e2e/test_nodes.py",
    ),
    Mutation(
        "ended-by-the-server",
        "parviraptor_celery/database.py",
        "LOST_MYSQL_CODES = (1053, 1927, 3169,",
        "LOST_MYSQL_CODES = (",
        "tests/integration/test_reconnect.py",
    ),
    Mutation(
        "atomic-body-of-somebody-else",
        "parviraptor_celery/execution.py",
        "    return alone(job.alias, lambda: job.held().exists())",
        "    return True",
        "tests/integration/test_reconnect.py",
    ),
    Mutation(
        "deaths-see-a-key-that-came-back",
        "parviraptor_celery/keyed.py",
        "in_transaction(self.alias, take, again=take_again)",
        "in_transaction(self.alias, take)",
        f"{DEATHS}[postgresql-key-comes-back]",
    ),
    Mutation(
        "deaths-see-who-is-not-woken",
        "parviraptor_celery/keyed.py",
        "            if is_done and freed:",
        "            if False:",
        f"{DEATHS}[sqlite-key-comes-back]",
    ),
    Mutation(
        "deaths-see-two-with-one-key",
        "parviraptor_celery/keys.py",
        "        return key\n",
        "        return None\n",
        f"{DEATHS}[sqlite-key]",
    ),
    Mutation(
        "deaths-see-what-is-not-squashed",
        "parviraptor_celery/dispatch.py",
        "if not row.SQUASH_WAITING_JOBS or row.status != JobStatus.NEW:",
        "if True:",
        f"{DEATHS}[sqlite-squash]",
    ),
]
