"""Pages for monitoring: two for machines, one for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps

from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import monitoring
from .conf import settings
from .models import Pause

View = Callable[[HttpRequest], HttpResponse]


def open_or_staff(view: View) -> View:
    """Let everybody in, or only staff where ``MONITORING_IS_OPEN`` is False."""

    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        user = getattr(request, "user", None)
        if not settings.MONITORING_IS_OPEN and not (user and user.is_active and user.is_staff):
            raise PermissionDenied
        return view(request)

    return guarded


@require_safe
@never_cache
@open_or_staff
def queue_monitoring(request: HttpRequest) -> HttpResponse:
    """Answer "Alles OK", or a line for each queue that needs a person."""
    lines = [str(queue) for queue in monitoring.health_of_all() if not queue.is_fine]
    return HttpResponse("\n".join(lines) or "Alles OK", content_type="text/plain; charset=utf-8")


@require_safe
@never_cache
@open_or_staff
def queue_health(request: HttpRequest) -> HttpResponse:
    """Answer 200 if everything is fine, else 503; the same JSON either way says what was found."""
    found = monitoring.report()
    body = {
        "status": "ok" if found.is_fine else "unhealthy",
        "problems": found.problems,
        "queues": {
            label: {name: count for name, count in asdict(queue).items() if name != "name"}
            for label, queue in found.queues.items()
        },
        "seconds_since": {
            what: None if age is None else round(age, 1) for what, age in found.ages.items()
        },
    }
    # Indented, since people look at it too.
    status = 200 if found.is_fine else 503
    return JsonResponse(body, status=status, json_dumps_params={"indent": 1})


@require_safe
@never_cache
@open_or_staff
def open_queue_entries(request: HttpRequest) -> HttpResponse:
    """Show a table of the open jobs of every queue, what is paused, and how far jobs are."""
    queues = [
        {"label": queue._meta.label, "counts": counts, "url": _list_in_admin(request, queue)}
        for queue, counts in monitoring.open_entries()
    ]
    context = {
        "queues": queues,
        "states": [str(s.value) for s in monitoring.OPEN_STATES],
        "pauses": [(queue._meta.label, pause) for queue, pause in monitoring.open_pauses()],
        "pauses_url": _list_in_admin(request, Pause),
        "progress": [(queue._meta.label, job) for queue, job in monitoring.progress()],
    }
    return render(request, "parviraptor_celery/open_queue_entries.html", context)


def _list_in_admin(request: HttpRequest, model: type[Model]) -> str:
    """Return the address of the list of ``model``; empty for whom the admin would turn away."""
    user, opts = getattr(request, "user", None), model._meta
    codes = [get_permission_codename(action, opts) for action in ("view", "change")]
    if not (user and user.is_active and user.is_staff):
        return ""
    if not any(user.has_perm(f"{opts.app_label}.{code}") for code in codes):
        return ""
    try:
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    except NoReverseMatch:
        return ""
