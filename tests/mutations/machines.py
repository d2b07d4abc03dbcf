"""Seen by what tries schedules and steps of its own."""

from __future__ import annotations

from .mutation import Mutation

SCHEDULES = "tests/integration/test_schedules.py"
DECISIONS = "tests/integration/test_schedules_decisions.py"
OUTBOX_SCHEDULES = "tests/integration/test_schedules_outbox.py"
QUEUE_MACHINE = "tests/integration/test_queue_machine.py"
OUTBOX_MACHINE = "tests/integration/test_outbox_machine.py"

MUTATIONS = [
    Mutation(
        "schedules-see-the-unique-lane",
        "parviraptor_celery/fencing.py",
        '"attempt": self.attempt + 1, "running_lane": self.lane}',
        '"attempt": self.attempt + 1, "running_lane": None}',
        f"{SCHEDULES}::test_a_hand_off_and_a_competing_kick_neither_deadlock_nor_overlap",
    ),
    Mutation(
        "schedules-see-the-fence",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.claimed_pk, "status": status, "attempt": self.token}',
        'return {"pk": self.claimed_pk}',
        f"{SCHEDULES}::test_a_worker_that_lost_its_lease_records_nothing_at_any_step",
    ),
    Mutation(
        "schedules-see-the-look-after-commit",
        "parviraptor_celery/drains.py",
        "if row is None and not report.is_exhausted:",
        "if False:",
        f"{SCHEDULES}::test_a_job_that_commits_while_the_settlement_waits_for_a_heartbeat_is_run",
    ),
    Mutation(
        "schedules-see-the-row-locks",
        "parviraptor_celery/lane_feed.py",
        "self.rows.lock([run.row.pk, successor.pk])",
        "pass",
        f"{SCHEDULES}::test_a_hand_off_and_a_competing_kick_neither_deadlock_nor_overlap",
    ),
    Mutation(
        "schedules-see-a-lost-kick",
        "parviraptor_celery/kicks.py",
        "return bool(self.model.rows(self.using).is_attended(self.lane, self.pk))",
        "return True",
        f"{SCHEDULES}::test_a_job_that_is_enqueued_while_its_lane_drains_is_never_stranded",
    ),
    Mutation(
        "schedules-see-the-lock-on-the-cause",
        "parviraptor_celery/dispatch.py",
        "if not self.rows.failed().filter(pk=row.held_by).exists_locked():",
        "if not self.rows.failed().filter(pk=row.held_by).exists():",
        f"{DECISIONS}::test_after_a_decision_about_their_cause_no_job_fails_and_none_is_stranded",
    ),
    Mutation(
        "schedules-see-a-pause",
        "parviraptor_celery/dispatch.py",
        "if head is not None and head.is_paused:",
        "if False:",
        f"{DECISIONS}::test_a_pause_lets_at_most_the_one_run_that_was_found_and_a_resume_wakes_all",
    ),
    Mutation(
        "key-that-is-freed",
        "parviraptor_celery/intake.py",
        "if not is_taken(error, queue):",
        "if True:",
        f"{DECISIONS}::test_of_one_key_one_job_waits_and_whoever_comes_too_late_is_told_so",
    ),
    Mutation(
        "key-that-comes-and-goes",
        "parviraptor_celery/keyed.py",
        "                # Somebody was faster with the key, even if it is free again.\n"
        "                if attempt == ATTEMPTS or not is_taken(error, type(self)):",
        "                if attempt == ATTEMPTS or self._holder_of_key() is None:",
        f"{DECISIONS}::test_of_one_key_one_job_waits_and_whoever_comes_too_late_is_told_so",
    ),
    Mutation(
        "schedules-see-the-barrier",
        "jaiminho_celery/barriers.py",
        "if event.pk <= self.passed:",
        "if True:",
        f"{OUTBOX_SCHEDULES}::test_a_commit_that_comes_late_with_a_lower_id_is_never_overtaken",
    ),
    Mutation(
        "schedules-see-a-late-hook",
        "jaiminho_celery/hooks.py",
        "return not is_late or alone(self.event.alias, self.event.renew)",
        "return True",
        f"{OUTBOX_SCHEDULES}::test_a_late_hook_never_begins_what_a_relay_has_taken_away",
    ),
    Mutation(
        "schedules-see-the-fence-of-the-outbox",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.pk, "status": status, "attempt": self.attempt}',
        'return {"pk": self.pk}',
        f"{OUTBOX_SCHEDULES}::test_a_hook_and_a_relay_publish_twice_only_if_the_lease_was_lost_and_lose_nothing",
    ),
    Mutation(
        "machine-fence",
        "parviraptor_celery/fencing.py",
        'return {"pk": self.claimed_pk, "status": status, "attempt": self.token}',
        'return {"pk": self.claimed_pk, "status": status}',
        QUEUE_MACHINE,
    ),
    Mutation(
        "machine-dependents-fail",
        "parviraptor_celery/dispatch.py",
        "return row.held_by is not None and policy is FailurePolicy.FAIL_DEPENDENTS",
        "return False",
        QUEUE_MACHINE,
    ),
    Mutation(
        "machine-back-off-holds",
        "parviraptor_celery/settlement.py",
        '"run_after": from_now(pause)}',
        '"run_after": None}',
        QUEUE_MACHINE,
    ),
    Mutation(
        "machine-dead-letter-holds",
        "jaiminho_celery/querysets.py",
        "return self._in_lane(lane, EventStatus.DEAD)",
        "return self.none()",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "machine-born-leased",
        "jaiminho_celery/strategies.py",
        "event.lease_until = from_now(settings.LEASE_SECONDS)",
        "event.lease_until = from_now(0)",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "machine-late-hook",
        "jaiminho_celery/hooks.py",
        "return not is_late or alone(self.event.alias, self.event.renew)",
        "return True",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "machine-failed-alone",
        "jaiminho_celery/dispatch.py",
        "        if first.error_count:\n            return [first]\n",
        "",
        OUTBOX_MACHINE,
    ),
    Mutation(
        "machine-last-attempt",
        "jaiminho_celery/backoff.py",
        "return most is not None and error_count + 1 >= most",
        "return most is not None and error_count >= most",
        OUTBOX_MACHINE,
    ),
]
