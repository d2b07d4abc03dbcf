"""What is wrong with a job is said by name, before the database says it or nobody does."""

from __future__ import annotations

from .mutation import Mutation

BAD_JOBS = "tests/integration/test_bad_jobs.py"
CHECKS = "tests/unit/parviraptor/test_checks.py"
CHANGES = "tests/integration/test_wrong_changes.py"

MUTATIONS = [
    Mutation(
        "no-threads-in-a-transaction",
        "parviraptor_celery/crews.py",
        "if connections[using].in_atomic_block:",
        "if False:",
        "tests/integration/test_test_api.py::"
        "test_several_threads_are_refused_in_a_transaction_which_they_would_not_see[postgresql]",
    ),
    Mutation(
        "a-key-that-is-written-fits",
        "parviraptor_celery/intake.py",
        '    "unique_key": _check_key,\n',
        "",
        CHANGES,
    ),
    Mutation(
        "columns-are-no-names-of-fields",
        "parviraptor_celery/checks.py",
        "if field.name != name:",
        "if False:",
        CHECKS,
    ),
    Mutation(
        "engine-columns-order-nothing",
        "parviraptor_celery/checks.py",
        "if field.name in clashes.COLUMNS or field.primary_key:",
        "if False:",
        CHECKS,
    ),
    Mutation(
        "jobs-of-another-queue",
        "parviraptor_celery/intake.py",
        "if meta is None or meta.concrete_model is not queue._meta.concrete_model:",
        "if False:",
        BAD_JOBS,
    ),
    Mutation(
        "jobs-of-another-queue-in-a-test",
        "parviraptor_celery/test.py",
        "        refuse_others(JobClass, jobs)\n",
        "",
        "tests/integration/test_test_api.py",
    ),
    Mutation(
        "changes-are-looked-at",
        "parviraptor_celery/guarded.py",
        "changes.refuse_options(self, names)",
        "pass",
        CHANGES,
    ),
    Mutation(
        "a-key-is-not-left-out-silently",
        "parviraptor_celery/changes.py",
        "        refuse_key(job)\n        names =",
        "        names =",
        CHANGES,
    ),
    Mutation(
        "no-run-by-hand",
        "parviraptor_celery/changes.py",
        "if JobStatus.PROCESSING in (before, job.status):",
        "if False:",
        CHANGES,
    ),
    Mutation(
        "forms-are-told",
        "parviraptor_celery/guarded.py",
        "**changes.as_errors(changes.problems(self), taken)",
        "",
        CHANGES,
    ),
    Mutation(
        "values-that-fit",
        "parviraptor_celery/storable.py",
        "if longest is not None and len(text) > longest:",
        "if False:",
        BAD_JOBS,
    ),
    Mutation(
        "no-nul-in-a-lane",
        "parviraptor_celery/storable.py",
        'if "\\0" in text:',
        "if False:",
        BAD_JOBS,
    ),
    Mutation(
        "numbers-in-range",
        "parviraptor_celery/storable.py",
        "if least is not None and not least <= number <= most:",
        "if False:",
        BAD_JOBS,
    ),
    Mutation(
        "no-fractions-for-whole-numbers",
        "parviraptor_celery/storable.py",
        "if isinstance(given, Number) and given != stored:",
        "if False:",
        BAD_JOBS,
    ),
    Mutation(
        "decimals-that-fit",
        "parviraptor_celery/storable.py",
        "if stored and stored.adjusted() >= whole:",
        "if False:",
        BAD_JOBS,
    ),
    Mutation(
        "born-at-rest",
        "parviraptor_celery/intake.py",
        "if job.status is not JobStatus.NEW:",
        "if False:",
        BAD_JOBS,
    ),
]
