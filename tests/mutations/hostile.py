"""Whatever is written into kicks, payloads, rows, forms and logs."""

from __future__ import annotations

from .mutation import Mutation

HOSTILE_KICKS = "tests/unit/test_hostile_kicks.py"
HOSTILE_PAYLOADS = "tests/unit/test_hostile_payloads.py"
HOSTILE_PAGES = "tests/unit/test_hostile_pages.py"
HOSTILE_VISITORS = "tests/unit/test_hostile_visitors.py"
HOSTILE_ROWS = "tests/integration/test_hostile_rows.py"
HOSTILE_QUERIES = "tests/integration/test_hostile_queries.py"
HOSTILE_LOGS = "tests/integration/test_hostile_logs.py"

MUTATIONS = [
    Mutation(
        "hostile-nudge-lanes",
        "jaiminho_celery/tasks.py",
        'known = sound_lanes(lanes, f"the outbox in {using}", logger)',
        "known = lanes",
        HOSTILE_KICKS,
    ),
    Mutation(
        "hostile-quoted-kick",
        "parviraptor_celery/exceptions.py",
        'f"{shown(label)} is not a job queue',
        'f"{label!r} is not a job queue',
        HOSTILE_KICKS,
    ),
    Mutation(
        "payload-bomb",
        "jaiminho_celery/serialization.py",
        "        if self._left < 0:",
        "        if self._left < -50 * self._max_bytes:",
        HOSTILE_PAYLOADS,
    ),
    Mutation(
        "message-of-another-shape",
        "jaiminho_celery/messages.py",
        "if (unreadable := _problem_of(call)) is not None:",
        "if (unreadable := None) is not None:",
        HOSTILE_PAYLOADS,
    ),
    Mutation(
        "markup-in-open-entries",
        "parviraptor_celery/templates/parviraptor_celery/open_queue_entries.html",
        "{{ pause.reason }}",
        "{{ pause.reason|safe }}",
        HOSTILE_PAGES,
    ),
    Mutation(
        "orders-in-the-log",
        "jaiminho_celery/receivers.py",
        "printable(event.name)",
        "event.name",
        HOSTILE_PAGES,
    ),
    Mutation(
        "monitoring-closed",
        "parviraptor_celery/views.py",
        "if not settings.MONITORING_IS_OPEN and not (user",
        "if False and not (user",
        HOSTILE_VISITORS,
    ),
    Mutation(
        "events-are-never-added",
        "jaiminho_celery/admin.py",
        "    def has_add_permission(self, request: HttpRequest) -> bool:\n        return False",
        "    def has_add_permission(self, request: HttpRequest) -> bool:\n        return True",
        HOSTILE_VISITORS,
    ),
    Mutation(
        "spoilt-rescue",
        "parviraptor_celery/sweeping.py",
        "        total += _rescue_one_by_one(rows, give_back, announce)",
        "        raise",
        HOSTILE_ROWS,
    ),
    Mutation(
        "signed-columns",
        "jaiminho_celery/signing.py",
        "        event.strategy,\n",
        "",
        "tests/unit/test_hostile_signatures.py",
    ),
    Mutation(
        "digits-in-a-search",
        "parviraptor_celery/admin_tools.py",
        " and len(term) <= LONGEST_ID",
        "",
        HOSTILE_QUERIES,
    ),
    Mutation(
        "edges-of-time-in-a-form",
        "parviraptor_celery/admin_tools.py",
        "        found.astimezone(UTC)  # at",
        "        pass  # at",
        HOSTILE_QUERIES,
    ),
    Mutation(
        "nul-in-a-filter",
        "jaiminho_celery/admin.py",
        'lookup in own and "\\0" not in str(value)',
        "lookup in own and True",
        HOSTILE_QUERIES,
    ),
    Mutation(
        "row-quoted-in-the-log",
        "parviraptor_celery/registry.py",
        "exc_info=tells_no_value(error)",
        "exc_info=True",
        HOSTILE_LOGS,
    ),
]
