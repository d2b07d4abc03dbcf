"""Who may do what, in every view and every action that there is: nobody else writes anything.

Views and actions are those that the URL resolver and the admin know, so that a new one without
a line in the tables below fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client, RequestFactory
from django.urls import get_resolver
from django.urls.resolvers import URLResolver
from django.utils import timezone

from jaiminho_celery.models import Event
from parviraptor_celery.models import Pause
from tests.faults.canaries import contents
from tests.testapp.models import FreeJob, LaneJob
from tests.unit.jobs import runs

pytestmark = pytest.mark.django_db

OURS = (Event, Pause, LaneJob, FreeJob)
LATER = "2999-01-01T00:00:00+00:00"
EVERYBODY = ("anonymous", "user", "inactive", "staff", "viewer", "changer", "superuser")
ABOVE = {
    "nobody": (),
    "superuser": ("superuser",),
    "changer": ("changer", "superuser"),
    "viewer": ("viewer", "changer", "superuser"),
    "staff": ("staff", "viewer", "changer", "superuser"),
    "anybody": EVERYBODY,
}
"""Who may, from the least that it takes."""

VIEWS = {
    "queue-monitoring/": "anybody",
    "queue-health/": "anybody",
    "open-queue-entries/": "anybody",
    **{
        f"admin/{model._meta.app_label}/{model._meta.model_name}/{view}": who
        for model in OURS
        for view, who in {
            "": "viewer",
            "add/": "nobody" if model is Event else "superuser",
            "<path:object_id>/history/": "viewer",
            "<path:object_id>/delete/": "nobody" if model is Event else "superuser",
            "<path:object_id>/change/": "viewer",
            "<path:object_id>/": "staff",  # leads to the page to change it
        }.items()
    },
}
MONITORING = [view for view, who in VIEWS.items() if who == "anybody"]
OF_QUEUES = {"retry": "changer", "ignore": "changer", "cancel": "changer"}
ACTIONS = {
    Event: dict.fromkeys(("replay", "skip", "discard"), "superuser"),
    Pause: {"delete_selected": "superuser"},
    LaneJob: {
        **OF_QUEUES,
        **dict.fromkeys(("pause_lane", "resume_lane", "delete_selected"), "superuser"),
    },
    FreeJob: {**OF_QUEUES, "delete_selected": "superuser"},
}
POSTS: dict[str, dict[str, str]] = {
    "add/": {"queue": "testapp.freejob", "reason": "x", "shop": "x", "number": "1", "script": "x"}
    | {"priority": "0", "name": "os:system", "version": "1", "result": "1"},
    "<path:object_id>/change/": {"script": "changed", "name": "os:system", "status": "SENT"}
    | {"reason": "changed", "queue": "testapp.freejob", "result": "7", "body": "changed"},
    "<path:object_id>/delete/": {"post": "yes"},
}
"""What is sent to a view that takes something: enough to do it, if it is allowed."""


@pytest.fixture
def rows() -> dict[Any, int]:
    """Rows of each kind and state; of each model the key of one."""
    soon = timezone.now() + timedelta(hours=1)
    for status in ("WAITING", "DEAD", "SKIPPED"):
        Event.objects.create(name="n", version=1, strategy="keep-order", body="b", status=status)
    for queue in (LaneJob, FreeJob):
        for status in ("NEW", "FAILED", "DEFERRED", "IGNORED", "PROCESSED"):
            queue.objects.create(status=status)
    runs(LaneJob.objects.create(shop="b"), lease_until=soon, progress_done=1)
    LaneJob.objects.latest("id").pause_lane("x")
    return {
        Event: Event.objects.dead().get().pk,
        Pause: Pause.objects.get().pk,
        LaneJob: LaneJob.objects.filter(status="FAILED").get().pk,
        FreeJob: FreeJob.objects.filter(status="FAILED").get().pk,
    }


@pytest.fixture(params=EVERYBODY)
def visitor(request: pytest.FixtureRequest) -> tuple[str, Client]:
    who: str = request.param
    return who, client_of(who)


def client_of(who: str, **options: Any) -> Client:
    client = Client(raise_request_exception=False, **options)
    if who == "anonymous":
        return client
    user = User.objects.create_user(
        who,
        is_staff=who != "user",
        is_active=who != "inactive",
        is_superuser=who in ("superuser", "inactive"),
    )
    verbs = {"viewer": ["view"], "changer": ["view", "change"]}.get(who, [])
    names = [f"{verb}_{model._meta.model_name}" for model in OURS for verb in verbs]
    if who == "user":  # all there is, but for being staff
        user.user_permissions.set(Permission.objects.all())
    else:
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return client


def patterns(resolver: Any, prefix: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern, path)
        else:
            yield path


def url_of(view: str, rows: dict[Any, int]) -> str:
    model = next((m for m in OURS if f"/{m._meta.model_name}/" in view), None)
    return "/" + view.replace("<path:object_id>", str(rows.get(model, "")))


def test_every_view_is_among_these() -> None:
    of_others = ("admin/auth/", "admin/django_celery_beat/")
    general = {f"admin/{name}" for name in ("", "login/", "logout/", "jsi18n/", "autocomplete/")}
    general |= {"admin/password_change/", "admin/password_change/done/", "admin/(?P<url>.*)$"}
    general |= {"admin/r/<path:content_type_id>/<path:object_id>/"}
    general |= {
        f"admin/^(?P<app_label>{'|'.join(labels)})/$"
        for labels in [dict.fromkeys(m._meta.app_label for m in admin.site._registry)]
    }
    found = {view for view in patterns(get_resolver()) if not view.startswith(of_others)}
    assert {view for view in found - general if "app_label" not in view} == set(VIEWS)


def test_every_action_is_among_these(admin_user: User) -> None:
    request = RequestFactory().get("/")
    request.user = admin_user
    ours = {
        model: set(model_admin.get_actions(request))
        for model, model_admin in admin.site._registry.items()
        if model._meta.app_label in ("jaiminho_celery", "parviraptor_celery", "testapp")
    }
    assert ours == {model: set(actions) for model, actions in ACTIONS.items()}


def test_who_may_look_at_which_view(visitor: tuple[str, Client], rows: dict[Any, int]) -> None:
    who, client = visitor
    before = contents()
    for view, least in VIEWS.items():
        answer = client.get(url_of(view, rows))
        assert answer.status_code == expected(who, view, least), view
    assert contents() == before


def expected(who: str, view: str, least: str) -> int:
    if view in MONITORING:
        return 503 if "health" in view else 200
    if who not in ABOVE["staff"] or view.endswith("<path:object_id>/"):
        return 302  # to the login, or to the page to change it
    return 200 if who in ABOVE[least] else 403


def test_who_may_send_what_to_which_view(visitor: tuple[str, Client], rows: dict[Any, int]) -> None:
    who, client = visitor
    for view in VIEWS:
        end = view.split("/", 3)[-1] if view.startswith("admin/") else ""
        data = POSTS.get(end, {"post": "yes", **POSTS["add/"]})
        with undone():
            before = contents()
            answer = client.post(url_of(view, rows), data)
            is_written = contents() != before
        assert is_written == may_write(who, view, end), f"{view}: {answer.status_code}"
        if not is_written:
            assert answer.status_code in (200, 302, 403, 405), view


def may_write(who: str, view: str, end: str) -> bool:
    if "/event/" in view or end not in POSTS:
        return False
    if end == "<path:object_id>/change/":  # own columns of a queue; a pause is never edited
        return "/pause/" not in view and who in ABOVE["changer"]
    return who == "superuser"


def test_who_may_do_which_action(visitor: tuple[str, Client], rows: dict[Any, int]) -> None:
    who, client = visitor
    for model in OURS:
        for action, least in ACTIONS[model].items():
            with undone():
                changed = act(client, model, action)
            assert (changed > 0) == (who in ABOVE[least]), f"{model._meta.label}: {action}"


@contextmanager
def undone() -> Iterator[None]:
    """Take back what the block writes."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def act(client: Client, model: Any, action: str, **more: str) -> int:
    """Confirm an action about all rows; return how many of our tables it changed."""
    url = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
    everything = [row.pk for row in model._base_manager.all()]
    data = {"action": action, "_selected_action": everything, "index": "0", "post": "yes"}
    before = contents()
    client.post(url, {**data, "select_across": "1", "shown_until": LATER, **more})
    after = contents()
    return sum(before[label] != after[label] for label in before)


def test_nothing_is_done_without_the_token_against_forgery(rows: dict[Any, int]) -> None:
    client = client_of("superuser", enforce_csrf_checks=True)
    before = contents()
    for view in VIEWS:
        if not view.startswith("admin/"):
            continue
        end = view.split("/", 3)[-1]
        answer = client.post(url_of(view, rows), POSTS.get(end, {}))
        assert answer.status_code == 403, view
    for model, actions in ACTIONS.items():
        for action in actions:
            assert act(client, model, action) == 0
    assert contents() == before


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
def test_other_methods_write_nothing(rows: dict[Any, int], method: str) -> None:
    client = client_of("superuser")
    before = contents()
    for view in VIEWS:
        answer = getattr(client, method)(url_of(view, rows))
        if view in MONITORING:
            assert answer.status_code == 405, view
    assert contents() == before


def test_monitoring_takes_no_post_and_tells_a_head_nothing() -> None:
    client = client_of("anonymous")
    for view in MONITORING:
        assert client.post(f"/{view}").status_code == 405
        assert client.head(f"/{view}").content == b""


def test_monitoring_is_for_staff_alone_where_it_is_closed(
    visitor: tuple[str, Client], settings: Any
) -> None:
    who, client = visitor
    settings.PARVIRAPTOR_CONFIG = {"MONITORING_IS_OPEN": False}
    for view in MONITORING:
        assert (client.get(f"/{view}").status_code != 403) == (who in ABOVE["staff"]), view


def test_monitoring_is_closed_to_all_where_nobody_is_told_apart(settings: Any) -> None:
    """A project without the middleware that says who asks."""
    settings.PARVIRAPTOR_CONFIG = {"MONITORING_IS_OPEN": False}
    settings.MIDDLEWARE = []
    for view in MONITORING:
        assert client_of("anonymous").get(f"/{view}").status_code == 403
