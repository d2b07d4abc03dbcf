"""The outbox in the admin: to look at, to replay and to skip, never to edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from .models import Event

HIDDEN = ("body", "signature", "lane", "running_lane", "leased_by", "version")


@admin.register(Event)
class EventAdmin(admin.ModelAdmin):
    """Read-only rows; what an event carries is shown to those who may see it."""

    list_display = (
        "id",
        "name",
        "stream",
        "key",
        "status",
        "created_at",
        "sent_at",
        "run_after",
        "error_count",
    )
    list_filter = ("status", "strategy", "stream")
    show_full_result_count = False
    actions = ("replay", "skip")

    def get_fields(self, request: HttpRequest, obj: Event | None = None) -> list[Any]:
        names = [field.name for field in Event._meta.fields if field.name not in HIDDEN]
        may_see = request.user.has_perm("jaiminho_celery.view_event_payload")
        return [*names, "body"] if may_see else names

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Event | None = None) -> bool:
        return False

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jaiminho_celery.replay_event")

    @admin.action(description="Replay dead letters", permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Event]) -> None:
        self._decide(request, queryset, Event.replay, "replayed")

    @admin.action(description="Skip dead letters", permissions=["replay"])
    def skip(self, request: HttpRequest, queryset: QuerySet[Event]) -> None:
        self._decide(request, queryset, Event.skip, "skipped")

    def _decide(
        self, request: HttpRequest, queryset: Any, decide: Callable[[Event], bool], verb: str
    ) -> None:
        done = sum(decide(event) for event in queryset.dead())
        self.message_user(request, f"{done} events {verb}.")
