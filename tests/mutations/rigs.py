"""Virtual clock, crash points, the kit, the judgement of the soak: tests that test."""

from __future__ import annotations

from .mutation import Mutation

CLOCK = "tests/integration/test_virtual_clock.py"
CRASHES = "tests/integration/test_crash_points.py"
KIT = "tests/integration/test_test_api.py"
CAUSES = "tests/unit/test_causes.py"
VERDICT = "tests/unit/test_soak_verdict.py"

MUTATIONS = [
    Mutation(
        "virtual-clock-keeps-no-sql",
        "parviraptor_celery/clock.py",
        "return keeping(*arguments) if _offset == _NOT_MOVED else compose(*arguments)",
        "return keeping(*arguments)",
        CLOCK,
    ),
    Mutation(
        "virtual-clock-forgets",
        "parviraptor_celery/clock.py",
        "for forget in _kept:",
        "for forget in []:",
        CLOCK,
    ),
    Mutation(
        "virtual-clock-is-put-right",
        "parviraptor_celery/virtual_clock.py",
        "stack.callback(clock.move, timedelta())",
        "pass",
        CLOCK,
    ),
    Mutation(
        "virtual-clock-of-new-rows",
        "parviraptor_celery/virtual_clock.py",
        "for field in _fields_that_default_to_now():",
        "for field in []:",
        CLOCK,
    ),
    Mutation(
        "the-dead-write-nothing",
        "parviraptor_celery/crash_points.py",
        'if sql.startswith(("ROLLBACK TO", "RELEASE")):',
        "if True:",
        CRASHES,
    ),
    Mutation(
        "crash-points-are-reached",
        "parviraptor_celery/crash_points.py",
        "if not crash.has_happened:",
        "if False:",
        CRASHES,
    ),
    Mutation(
        "crash-points-are-tied-to-the-engine",
        "parviraptor_celery/crash_points.py",
        '_after(execution, "_run_body", come_by)',
        '_after(execution, "_restore", come_by)',
        CRASHES,
    ),
    Mutation(
        "order-of-bodies",
        "parviraptor_celery/bodies.py",
        "if (before := highest.get(lane)) and body.pk < before.pk:",
        "if False:",
        KIT,
    ),
    Mutation(
        "threads-in-the-transaction-of-a-test",
        "parviraptor_celery/crews.py",
        "    if connections[using].in_atomic_block:",
        "    if False:",
        "tests/integration/test_test_api.py::"
        "test_threads_in_the_transaction_of_a_test_are_refused_with_what_to_do[postgresql]",
    ),
    Mutation(
        "workers-end-together",
        "parviraptor_celery/crews.py",
        "if self.idle >= self.size:",
        "if True:",
        KIT,
    ),
    Mutation(
        "soak-strike-in-time",
        "tests/faults/causes.py",
        "return after is None or after.began >= self.since",
        "return True",
        CAUSES,
    ),
    Mutation(
        "soak-strike-before",
        "tests/faults/causes.py",
        "return before is None or before.began <= self.until",
        "return True",
        CAUSES,
    ),
    Mutation(
        "soak-strike-once",
        "tests/faults/causes.py",
        "if strike not in used or match(used[strike], tried):",
        "if True:",
        CAUSES,
    ),
    Mutation(
        "soak-strike-of-its-own-process",
        "tests/faults/causes.py",
        "for s in at_hand[run.process] if",
        "for some in at_hand.values() for s in some if",
        CAUSES,
    ),
    Mutation(
        "soak-message-in-time",
        "tests/faults/causes.py",
        "if any(written <= at <= own[-1].began for at in moments):",
        "if moments:",
        CAUSES,
    ),
    Mutation(
        "soak-batch",
        "tests/faults/causes.py",
        "if repeats > batch * len(moments):",
        "if False:",
        CAUSES,
    ),
    Mutation(
        "soak-lost-messages",
        "tests/soak/verdict.py",
        "if len(messages) > allowed:",
        "if False:",
        VERDICT,
    ),
    Mutation(
        "soak-durable-broker",
        "tests/soak/verdict.py",
        "        if self.broker_is_durable:\n            return 0\n",
        "",
        VERDICT,
    ),
    Mutation(
        "soak-ghosts",
        "tests/soak/verdict.py",
        "for item in sorted(history.ghosts())",
        "for item in ()",
        VERDICT,
    ),
    Mutation(
        "soak-sum",
        "tests/soak/verdict.py",
        "return [] if counted == wanted else",
        "return [] if True else",
        VERDICT,
    ),
    Mutation(
        "soak-deaths",
        "tests/soak/verdict.py",
        "if deaths > strikes else []",
        "if False else []",
        VERDICT,
    ),
    Mutation(
        "soak-rest",
        "tests/soak/verdict.py",
        'if status != "PROCESSED"',
        "if False",
        VERDICT,
    ),
    Mutation(
        "e2e-asks-the-engine",
        "tests/e2e/engine.py",
        "return DOCKER if _engine_answers(client) else PROCESSES",
        "return PROCESSES",
        "tests/unit/test_e2e_engine.py",
    ),
]
