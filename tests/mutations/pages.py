"""Admin pages, monitoring, and commands about dead letters."""

from __future__ import annotations

from .mutation import Mutation

HEALTH = "tests/unit/parviraptor/test_health.py"
VIEWS = "tests/unit/parviraptor/test_views.py"
ADMIN = "tests/unit/parviraptor/test_admin.py"

MUTATIONS = [
    Mutation(
        "links-only-where-one-may-look",
        "parviraptor_celery/views.py",
        'if not any(user.has_perm(f"{opts.app_label}.{code}") for code in codes):',
        "if False:",
        VIEWS,
    ),
    Mutation(
        "admin-asks-first",
        "parviraptor_celery/admin_decisions.py",
        "if shown_until is None:",
        "if False:",
        ADMIN,
    ),
    Mutation(
        "admin-leaves-later-changes-alone",
        "parviraptor_celery/admin_decisions.py",
        "queryset.filter(modification_date__lte=shown_until)",
        "queryset",
        ADMIN,
    ),
    Mutation(
        "admin-decides-only-with-permission",
        "parviraptor_celery/admin_decisions.py",
        "def has_cancel_permission(self, request: HttpRequest) -> bool:\n"
        "        return self.has_change_permission(request)",
        "def has_cancel_permission(self, request: HttpRequest) -> bool:\n        return True",
        ADMIN,
    ),
    Mutation(
        "admin-engine-read-only",
        "parviraptor_celery/admin.py",
        "return (*given, *ENGINE, *lane,",
        "return (*given, *lane,",
        ADMIN,
    ),
    Mutation(
        "admin-tracebacks-as-text",
        "parviraptor_celery/admin_tools.py",
        '"soft" if wraps else "off", label, text)',
        '"soft" if wraps else "off", label, type(format_html("{}", ""))(text))',
        ADMIN,
    ),
    Mutation(
        "health-misses-sweeps",
        "parviraptor_celery/monitoring.py",
        "if pulse in needed and pulse.is_missing(age):",
        "if False:",
        HEALTH,
    ),
    Mutation(
        "health-forgives-beat",
        "parviraptor_celery/monitoring.py",
        "if pulse in needed and pulse.is_missing(age):",
        "if pulse.is_missing(age):",
        HEALTH,
    ),
    Mutation(
        "health-status",
        "parviraptor_celery/views.py",
        "status = 200 if found.is_fine else 503",
        "status = 200",
        HEALTH,
    ),
    Mutation(
        "asker-is-noted",
        "parviraptor_celery/tasks.py",
        "sweep.note_asker(asked_by)",
        "pass",
        HEALTH,
    ),
    Mutation(
        "blanks-at-the-end",
        "jaiminho_celery/querysets.py",
        'rows = rows.filter(**{f"{name}_length": len(text)})',
        "pass",
        "tests/integration/test_dead_letters.py",
    ),
    Mutation(
        "only-what-was-shown",
        "jaiminho_celery/management/commands/dead_letters.py",
        '"until": shown_until}',
        '"until": None}',
        "tests/unit/jaiminho/test_dead_letters_command.py",
    ),
    Mutation(
        "admin-is-no-oracle",
        "jaiminho_celery/admin.py",
        "return lookup in own and",
        "return super().lookup_allowed(lookup, value, request) and",
        "tests/unit/jaiminho/test_admin.py",
    ),
]
