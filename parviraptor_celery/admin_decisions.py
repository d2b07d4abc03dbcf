"""What people decide about jobs in the admin: who may, the question, and what is done then."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import label_for_field
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from . import decisions
from .admin_lookups import StorableLookups
from .admin_tools import moment
from .decisions import Decision
from .jobs import AbstractJob
from .pauses import REASON_LENGTH
from .statements import database_time

PER_LANE = ("pause_lane", "resume_lane")
MOST_LISTED = 20


class DecidingAdmin(StorableLookups):
    """The actions on jobs: each asks on a page of its own before it does what it says."""

    model: type[AbstractJob]

    actions = ("retry", "ignore", "cancel", *PER_LANE)

    # Who may decide

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self.has_change_permission(request)

    def has_ignore_permission(self, request: HttpRequest) -> bool:
        return self.has_change_permission(request)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.has_change_permission(request)

    def has_pause_permission(self, request: HttpRequest) -> bool:
        may_pause = request.user.has_perm("parviraptor_celery.add_pause")
        return self.has_change_permission(request) and may_pause

    def has_resume_permission(self, request: HttpRequest) -> bool:
        may_resume = request.user.has_perm("parviraptor_celery.delete_pause")
        return self.has_change_permission(request) and may_resume

    # Deciding

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        if self.model.dependent_fields is None:
            return {name: item for name, item in actions.items() if name not in PER_LANE}
        return actions

    @admin.action(description="Retry failed jobs", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        return self._decide(request, queryset, decisions.RETRY)

    @admin.action(description="Ignore failed jobs", permissions=["ignore"])
    def ignore(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        return self._decide(request, queryset, decisions.IGNORE)

    @admin.action(description="Cancel waiting jobs", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        return self._decide(request, queryset, decisions.CANCEL)

    @admin.action(description="Pause the lanes of jobs", permissions=["pause"])
    def pause_lane(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        return self._decide(request, queryset, decisions.PAUSE_LANE)

    @admin.action(description="Resume the lanes of jobs", permissions=["resume"])
    def resume_lane(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        return self._decide(request, queryset, decisions.RESUME_LANE)

    def _decide(self, request: HttpRequest, queryset: Any, decision: Decision) -> Any:
        """Show what would be done; when that comes back confirmed, do it."""
        shown_until = moment(request.POST.get("shown_until", ""))
        if shown_until is None:
            return self._confirmation(request, queryset, decision)
        shown = queryset.filter(modification_date__lte=shown_until)  # not what changed since
        done = decision.to(shown, request.POST.get("reason", "")[:REASON_LENGTH])
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, decision.done_to(done), level)
        return None

    def _confirmation(self, request: HttpRequest, queryset: Any, decision: Decision) -> Any:
        concerned = decision.concerned(queryset)
        jobs = self._listed(request, concerned)
        if not jobs:
            self.message_user(
                request, f"There are no {decision.what} among the selected.", messages.WARNING
            )
            return None
        count = concerned.order_by().values("pk")[: decisions.MOST_AT_ONCE].count()
        context = {
            **self.admin_site.each_context(request),
            "title": f"{decision.name.capitalize()} {decision.what}",
            "opts": self.opts,
            "decision": decision,
            "subject": decision.of(count),
            "headings": [label_for_field(name, self.model) for name in self._lane_fields()],
            "jobs": jobs,
            "not_shown": count - len(jobs),
            "count": count,
            "most": decisions.MOST_AT_ONCE,
            "reason_length": REASON_LENGTH,
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
            "action": request.POST.get("action", ""),
            "shown_until": database_time(queryset.db).isoformat(),
            "changelist": request.get_full_path(),
        }
        return TemplateResponse(request, "admin/parviraptor_celery/decide.html", context)

    def _listed(self, request: HttpRequest, jobs: Any) -> list[tuple[AbstractJob, list[str]]]:
        """Return the first of ``jobs`` that a page shows, with the values that make their lane."""
        related = self._related_lane_fields()
        found = (jobs.select_related(*related) if related else jobs).order_by("pk")[:MOST_LISTED]
        return [(job, [str(getattr(job, name)) for name in self._lane_fields()]) for job in found]

    def _lane_fields(self) -> list[str]:
        return self.model.dependent_fields or []

    def _related_lane_fields(self) -> list[str]:
        fields = [self.model._meta.get_field(name) for name in self._lane_fields()]
        return [field.name for field in fields if isinstance(field, models.ForeignKey)]
