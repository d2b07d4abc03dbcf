"""Who is woken after a job gave way, was deleted, or was changed by hand."""

from __future__ import annotations

from .mutation import Mutation

WAKES = "tests/integration/test_wakes.py"

MUTATIONS = [
    Mutation(
        "superseded-wakes-its-lane",
        "parviraptor_celery/keyed.py",
        "            if is_done and freed:",
        "            if False:",
        WAKES,
    ),
    Mutation(
        "wakes-only-who-may-begin",
        "parviraptor_celery/wakes.py",
        "if rows.may_begin(lane, behind=pk)]",
        "if True]",
        WAKES,
    ),
    Mutation(
        "kick-for-the-first-of-a-lane",
        "parviraptor_celery/kicks.py",
        "sorted(hooks, key=lambda hook: -hook.pk)",
        "reversed(hooks)",
        "tests/integration/test_kick_hooks.py",
    ),
    Mutation(
        "wakes-of-one-transaction-are-one",
        "parviraptor_celery/wakes.py",
        "return hook[1].freed",
        "pass",
        WAKES,
    ),
    Mutation(
        "wakes-of-many-lanes-are-one",
        "parviraptor_celery/wakes.py",
        "if len(lanes) > attendance.BACKLOG:",
        "if False:",
        WAKES,
    ),
    Mutation(
        "wakes-nobody-who-came-before",
        "parviraptor_celery/querysets.py",
        'if head is None or head["id"] < behind:',
        "if head is None:",
        WAKES,
    ),
    Mutation(
        "delete-wakes",
        "parviraptor_celery/decided.py",
        "        if held:\n",
        "        if False:\n",
        WAKES,
    ),
    Mutation(
        "delete-of-many-wakes",
        "parviraptor_celery/querysets.py",
        "        if freed:\n",
        "        if False:\n",
        WAKES,
    ),
    Mutation(
        "delete-of-who-runs-wakes-nobody",
        "parviraptor_celery/decided.py",
        "return self.lane is not None and self.status in CLAIMABLE",
        "return self.lane is not None",
        WAKES,
    ),
    Mutation(
        "delete-of-many-is-no-verb-of-managers",
        "parviraptor_celery/querysets.py",
        "    delete.queryset_only = True  # type: ignore[attr-defined]\n",
        "",
        WAKES,
    ),
    Mutation(
        "brought-forward-is-kicked",
        "parviraptor_celery/guarded.py",
        'is_new or written & {"status", "run_after"}',
        "is_new",
        WAKES,
    ),
    Mutation(
        "set-aside-by-hand-wakes",
        "parviraptor_celery/guarded.py",
        'elif self.lane is not None and "status" in written:',
        "elif False:",
        WAKES,
    ),
    Mutation(
        "cleaning-asks-for-nobody",
        "parviraptor_celery/deletion.py",
        "QuerySet.delete(rows.filter(pk__in=ids))",
        "rows.filter(pk__in=ids).delete()",
        WAKES,
    ),
    Mutation(
        "gave-way-unheard",
        "parviraptor_celery/keyed.py",
        "for status in (to, JobStatus.SQUASHED):",
        "for status in (to,):",
        "tests/integration/test_lost_answers.py",
    ),
]
