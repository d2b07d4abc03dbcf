"""Prepared statements, and sessions that a pooler changes."""

from __future__ import annotations

from .mutation import Mutation

PREPARED = "tests/integration/test_prepared_statements.py"

MUTATIONS = [
    Mutation(
        "prepared-statements",
        "parviraptor_celery/sessions.py",
        "                self.may_prepare = True",
        "                self.may_prepare = False",
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
        "_sqlstate(error) in OF_ANOTHER_SESSION\n        or",
        "False or",
        PREPARED,
    ),
    Mutation(
        "unnoticed-pooler-of-a-producer",
        "parviraptor_celery/sessions.py",
        "            self.session.may_prepare = False\n"
        "            _distrust(self.connection.alias)",
        "            pass",
        PREPARED,
    ),
    Mutation(
        "tenants",
        "parviraptor_celery/sessions.py",
        "if any(getattr(kind, name) is not getattr(DatabaseWrapper, name) for name in _MAKERS):",
        "if False:",
        PREPARED,
    ),
    Mutation(
        "lookers-on",
        "parviraptor_celery/sessions.py",
        "return self.may_prepare and not _is_looked_on(connection)",
        "return self.may_prepare",
        PREPARED,
    ),
    Mutation(
        "methods-that-were-put-back",
        "parviraptor_celery/sessions.py",
        'getattr(own[name], "__func__", None) is not getattr(type(connection), name)',
        "True",
        PREPARED,
    ),
    Mutation(
        "sessions-are-let-go",
        "parviraptor_celery/sessions.py",
        "_prepared_by_us: WeakSet[Any] = WeakSet()",
        "_prepared_by_us: set[Any] = set()",
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
