"""Queues in the admin: to look at, to ask why a job does not run, and to decide about jobs.

>>> @admin.register(Export)
... class ExportAdmin(JobAdmin):
...     pass

Made to stay usable with a million jobs: nothing here counts, sorts or searches them all.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.db import router
from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from . import pauses, registry
from .admin_decisions import DecidingAdmin
from .admin_lookups import StorableLookups
from .admin_tools import MOST_COUNTED, CappedPaginator, id_in, long_text, one_line
from .exceptions import UnknownQueue
from .jobs import AbstractJob
from .models import Pause

ENGINE = tuple(field.name for field in AbstractJob._meta.local_fields)
SHOWN_ABOVE = {
    *("status", "error_count", "error_message", "error_traceback"),
    *("progress_done", "progress_total", "progress_note"),
}
SET_AT_CREATION = ("run_after", "priority")


class JobAdmin(DecidingAdmin):
    """Shows the jobs of a queue, and asks before it does what an action says.

    The actions need the change permission of the queue; pausing and resuming also that to add or
    delete pauses. Override ``has_retry_permission()``, ``has_ignore_permission()``,
    ``has_cancel_permission()``, ``has_pause_permission()`` or ``has_resume_permission()`` for
    other rules. Columns of the engine are never edited here; those of your own are.
    """

    list_filter = ("status",)
    search_fields = ("pk",)
    search_help_text = (
        f"An id or a unique key, in full. At most {MOST_COUNTED:,} jobs are counted and paged "
        "through: narrow them down."
    )
    ordering = ("-id",)
    sortable_by = ("id",)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator

    def __init__(self, model: Any, admin_site: admin.AdminSite) -> None:
        if not issubclass(model, AbstractJob):
            raise ImproperlyConfigured(
                f"{type(self).__name__} is a JobAdmin, and {model._meta.label} is no job queue."
            )
        super().__init__(model, admin_site)

    # The list

    def get_queryset(self, request: HttpRequest) -> Any:
        # Where jobs are decided about, not a replica that the router may read from.
        rows = self.model.rows(router.db_for_write(self.model)).defer("error_traceback")
        return rows.order_by(*self.get_ordering(request))

    def get_list_display(self, request: HttpRequest) -> Any:
        if self.list_display != ("__str__",):
            return self.list_display
        more = ("error", "progress", "run_after", "attempt", "error_count")
        return ("id", "status", *self._lane_fields(), *more)

    def get_list_select_related(self, request: HttpRequest) -> Any:
        return self.list_select_related or self._related_lane_fields() or False

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Search for what is equal to an id or a key, or in the ``search_fields`` of a subclass."""
        if tuple(self.search_fields) != JobAdmin.search_fields:
            return super().get_search_results(request, queryset, search_term)
        if not (term := search_term.strip()):
            return queryset, False
        pk = id_in(term)
        return queryset.filter(Q(unique_key=term) | Q(pk=pk or 0)), False

    @admin.display(description="error")
    def error(self, job: AbstractJob) -> str:
        return one_line(job.error_message)

    @admin.display(description="progress")
    def progress(self, job: AbstractJob) -> str:
        if job.progress_done is None:
            return ""
        share = f" of {job.progress_total}" if job.progress_total else ""
        return one_line(f"{job.progress_done}{share} {job.progress_note}")

    # One job

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if self.fieldsets or self.fields:
            return super().get_fieldsets(request, obj)
        own = [field.name for field in self.model.own_fields() if field.editable]
        own = [*self._lane_fields(), *own]
        if obj is None:
            is_ordered = self.model.dependent_fields is not None  # then no priority is looked at
            return [(None, {"fields": [*own, "run_after", *([] if is_ordered else ["priority"])]})]
        progress = ["progress"] if obj.progress_done is not None else []
        has_failed = obj.error_count or obj.error_message or obj.error_traceback
        error = ("Error", {"fields": ["error_count", "error_in_full", "traceback"]})
        engine = [name for name in ENGINE if name not in SHOWN_ABOVE]
        return [
            (None, {"fields": ["status", "why", *progress]}),
            *([error] if has_failed else []),
            ("Fields", {"fields": own}),
            ("Engine", {"fields": engine, "classes": ["collapse"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        given = tuple(self.readonly_fields)
        if obj is None:
            return (*given, *(name for name in ENGINE if name not in SET_AT_CREATION))
        lane = self.model.dependent_fields or ()  # it can't change after the job was created
        return (*given, *ENGINE, *lane, "why", "progress", "error_in_full", "traceback")

    @admin.display(description="why")
    def why(self, job: AbstractJob) -> str:
        reason = job.why()
        if reason.job_id is None:
            return reason.text
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        other = reverse(name, args=[reason.job_id], current_app=self.admin_site.name)
        return format_html('{} <a href="{}">Job {}</a>', reason.text, other, reason.job_id)

    @admin.display(description="error message")
    def error_in_full(self, job: AbstractJob) -> str:
        return long_text(job.error_message, "Error message")

    @admin.display(description="traceback")
    def traceback(self, job: AbstractJob) -> str:
        return long_text(job.error_traceback, "Traceback", wraps=False)


class PauseForm(forms.ModelForm):
    """A pause of a whole queue; lanes are paused by an action on their jobs."""

    queue = forms.ChoiceField()

    class Meta:
        model = Pause
        fields = ("queue", "reason")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        queue: Any = self.fields["queue"]
        labels = [(q._meta.label_lower, q._meta.label) for q in registry.all_queues()]
        queue.choices = [("", "---------"), *labels]  # none is paused by a hasty click


@admin.register(Pause)
class PauseAdmin(StorableLookups):
    """The pauses: adding one pauses a queue, deleting one resumes its queue or lane."""

    form = PauseForm
    list_display = ("queue", "jobs_of", "reason", "paused_at")
    list_filter = ("queue",)
    ordering = ("paused_at",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).using(router.db_for_write(Pause))

    @admin.display(description="jobs")
    def jobs_of(self, pause: Pause) -> str:
        """Return what the lane is, as far as one of its jobs still waits."""
        if not pause.lane:
            return "the whole queue"
        queue = next((q for q in registry.all_queues() if q._meta.label_lower == pause.queue), None)
        alias = str(pause._state.db)
        job = queue.rows(alias).waiting_in(pause.lane).first() if queue else None
        if job is None:
            return f"lane {pause.lane}"
        names = job.dependent_fields or ()
        values = ", ".join(f"{name}={getattr(job, name)}" for name in names)
        return values or "the whole queue"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        queue = registry.get_queue(obj.queue)
        using = router.db_for_write(queue)
        queue.pause(using=using, reason=obj.reason)
        obj.pk = Pause.objects.using(using).get(queue=obj.queue, lane="").pk

    def delete_model(self, request: HttpRequest, obj: Pause) -> None:
        _end(obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for pause in queryset:
            _end(pause)

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        if (delete := actions.get("delete_selected")) is not None:
            actions["delete_selected"] = (*delete[:2], "Resume (delete the selected pauses)")
        return actions

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _end(pause: Pause) -> None:
    """Resume what ``pause`` holds, and wake its workers; of an unknown queue delete it only."""
    try:
        queue = registry.get_queue(pause.queue)
    except UnknownQueue:
        pause.delete()
        return
    pauses.resume(queue, pause._state.db, pause.lane)
