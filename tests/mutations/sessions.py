"""Prepared statements, and sessions that a pooler changes."""

from __future__ import annotations

from .mutation import Mutation

PREPARED = "tests/integration/test_prepared_statements.py"

MUTATIONS = [
    Mutation(
        "prepared-statements",
        "parviraptor_celery/sessions.py",
        "                self.prepares = True",
        "                self.prepares = False",
        PREPARED,
    ),
    Mutation(
        "pooler",
        "parviraptor_celery/sessions.py",
        "    return bool(answering == session.info.backend_pid)",
        "    return True",
        PREPARED,
    ),
    Mutation(
        "unnoticed-pooler",
        "parviraptor_celery/sessions.py",
        'getattr(cause, "sqlstate", None) in OF_ANOTHER_SESSION\n        or',
        "False or",
        PREPARED,
    ),
    Mutation(
        "stale-plan",
        "parviraptor_celery/sessions.py",
        'or getattr(diagnosis, "source_function", None) == STALE_RESULT',
        "or False",
        PREPARED,
    ),
    Mutation(
        "stale-plan-of-a-candidate",
        "parviraptor_celery/database.py",
        "isinstance(error, REFUSALS) and not sessions.is_of_a_plan(error)",
        "isinstance(error, REFUSALS)",
        PREPARED,
    ),
    Mutation(
        "logged-statements",
        "parviraptor_celery/sessions.py",
        " or connection.queries_logged:",
        ":",
        PREPARED,
    ),
]
