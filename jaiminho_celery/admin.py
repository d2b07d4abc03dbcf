"""The outbox in the admin: to look at, and to decide about dead letters, never to edit.

Made to stay usable with a million events: nothing here counts, sorts or searches them all.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import router
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from parviraptor_celery.admin_tools import (
    MOST_COUNTED,
    CappedPaginator,
    id_in,
    long_text,
    moment,
    one_line,
)

from . import dead_letters, registry
from .dead_letters import Report, Verb
from .models import Event

ABOVE = ("status", "name", "stream", "key", "created_at", "run_after", "sent_at")
HIDDEN = ("body", "signature", "lane", "running_lane", "leased_by", "version")


class StreamFilter(admin.SimpleListFilter):
    """The streams that this process knows; reading them from the table would read all of it."""

    title = "stream"
    parameter_name = "stream"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        asked_for = request.GET.get(self.parameter_name, "")
        streams = sorted({*registry.known_streams(), asked_for})
        return [(stream, stream or "(none)") for stream in streams]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset if (stream := self.value()) is None else queryset.equal_to(stream=stream)


@admin.register(Event)
class EventAdmin(admin.ModelAdmin):
    """Read-only rows; what an event carries is shown to those who may see it."""

    list_display = (
        "id",
        "status",
        "name",
        "stream",
        "key",
        "error",
        "run_after",
        "error_count",
        "created_at",
        "sent_at",
        "fingerprint",
    )
    list_filter = ("status", "strategy", StreamFilter)
    search_fields = ("id", "uuid", "name", "fingerprint")
    search_help_text = (
        "An id, a UUID, a function's name or a fingerprint, in full. At most "
        f"{MOST_COUNTED:,} events are counted and paged through: narrow them down."
    )
    ordering = ("-id",)
    sortable_by = ("id",)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    actions = ("replay", "skip", "discard")
    readonly_fields = ("error_in_full", "body_in_full")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        # Where events are decided about, not a replica that the router may read from.
        rows = super().get_queryset(request).using(router.db_for_write(Event))
        return rows.defer("body", "signature")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search for what is equal, in columns that are no payload."""
        term = search_term.strip()
        return (queryset.filter(_equals(term)) if term else queryset), False

    @admin.display(description="error")
    def error(self, event: Event) -> str:
        return one_line(event.error_message)

    def get_fieldsets(self, request: HttpRequest, obj: Event | None = None) -> Any:
        may_see = request.user.has_perm("jaiminho_celery.view_event_payload")
        has_failed = obj is not None and (obj.error_count or obj.error_message)
        error = ("Error", {"fields": ["error_count", "error_in_full", "fingerprint"]})
        shown = {*ABOVE, "error_count", "error_message", "fingerprint", *HIDDEN}
        engine = [field.name for field in Event._meta.fields if field.name not in shown]
        engine += ["signature"] if may_see else []
        return [
            (None, {"fields": ABOVE}),
            *([error] if has_failed else []),
            *([("Payload", {"fields": ["body_in_full"]})] if may_see else []),
            ("Engine", {"fields": engine, "classes": ["collapse"]}),
        ]

    @admin.display(description="error message")
    def error_in_full(self, event: Event) -> str:
        return long_text(event.error_message, "Error message")

    @admin.display(description="body")
    def body_in_full(self, event: Event) -> str:
        return long_text(event.body, "Body")

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Filter by the list's own filters only: by others one could guess what is hidden."""
        own = {"status", "strategy", "status__exact", "strategy__exact", "stream"}
        return lookup in own and "\0" not in str(value)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jaiminho_celery.replay_event")

    @admin.action(description="Replay dead letters", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Event]) -> HttpResponse | None:
        return self._decide(request, queryset, Verb.REPLAY)

    @admin.action(description="Skip dead letters", permissions=["replay"])
    def skip(self, request: HttpRequest, queryset: QuerySet[Event]) -> HttpResponse | None:
        return self._decide(request, queryset, Verb.SKIP)

    @admin.action(description="Discard dead letters", permissions=["replay"])
    def discard(self, request: HttpRequest, queryset: QuerySet[Event]) -> HttpResponse | None:
        return self._decide(request, queryset, Verb.DISCARD)

    def _decide(self, request: HttpRequest, queryset: Any, verb: Verb) -> HttpResponse | None:
        """Show what would be done; when that comes back confirmed, do it."""
        shown_until = moment(request.POST.get("shown_until", ""))
        if shown_until is None:
            return self._confirmation(request, queryset, verb)
        shown = queryset.filter(modified_at__lte=shown_until)  # not what died since
        report = dead_letters.decide(verb, shown)
        self.message_user(
            request,
            f"{report.total} {verb.value}, {report.left_alone} were left alone.",
            messages.SUCCESS,
        )
        return None

    def _confirmation(self, request: HttpRequest, queryset: Any, verb: Verb) -> HttpResponse | None:
        report = dead_letters.decide(verb, queryset, dry_run=True)
        if not report.total:
            self.message_user(
                request, "None of the selected events is a dead letter.", messages.WARNING
            )
            return None
        return TemplateResponse(
            request,
            "admin/jaiminho_celery/event/decide.html",
            {**self.admin_site.each_context(request), **self._explain(request, report, verb)},
        )

    def _explain(self, request: HttpRequest, report: Report, verb: Verb) -> dict[str, Any]:
        return {
            "title": f"{verb.name.capitalize()} dead letters",
            "opts": self.opts,
            "report": report,
            "verb": verb,
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
            "action": verb.name.lower(),
            "shown_until": max(line.latest for line in report.lines).isoformat(),
            "changelist": request.get_full_path(),
        }


def _equals(term: str) -> Q:
    found = Q(name=term) | Q(fingerprint=term)
    if (pk := id_in(term)) is not None:
        found |= Q(pk=pk)
    try:
        return found | Q(uuid=UUID(term))
    except ValueError:
        return found
