"""The admin: who may look, who may decide, and that nothing is run or edited by accident."""

from __future__ import annotations

import html
import re
import types
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from jaiminho_celery.admin import EventAdmin
from jaiminho_celery.models import Event
from tests.unit.events import statuses

pytestmark = pytest.mark.django_db

LIST = "/admin/jaiminho_celery/event/"
EVIL = "<script>alert(1)</script>"
SECRET = "the-payload-of-a-customer"
SIGNATURE = "its-signature"


@pytest.fixture
def events() -> list[Event]:
    """One event of every state, with something nasty in every text."""
    texts = {"stream": EVIL, "key": EVIL, "name": EVIL, "error_message": EVIL}
    columns: list[dict[str, Any]] = [
        {"status": "WAITING"},
        {"status": "PUBLISHING", "lease_until": timezone.now()},
        {"status": "SENT", "sent_at": timezone.now()},
        {"status": "DEAD"},
        {"status": "DEAD"},
        {"status": "SKIPPED"},
    ]
    body = f'{{"args":["{SECRET}"],"kwargs":{{}}}}'
    return [
        Event.objects.create(
            version=1, strategy="keep-order", body=body, signature=SIGNATURE, **texts, **more
        )
        for more in columns
    ]


def page_for(client: Client, *permissions: str) -> Client:
    """Log somebody in who may do what `permissions` say."""
    user = User.objects.create_user("operator", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    assert user.user_permissions.count() == len(permissions)
    client.force_login(user)
    return client


class TestLooking:
    def test_needs_a_permission(self, client: Client, events: list[Event]) -> None:
        page_for(client)
        assert client.get(LIST).status_code == 403
        assert client.get(f"{LIST}{events[0].pk}/change/").status_code == 403

    def test_opens_every_page(self, client: Client, events: list[Event]) -> None:
        page_for(client, "view_event")
        assert client.get(LIST).status_code == 200
        for event in events:
            assert client.get(f"{LIST}{event.pk}/change/").status_code == 200
        for query in ("?status__exact=DEAD", "?strategy__exact=keep-order", "?o=-6", "?stream=x"):
            assert client.get(LIST + query).status_code == 200

    def test_shows_the_error_of_each_in_the_list_and_in_full(
        self, client: Client, events: list[Event]
    ) -> None:
        page_for(client, "view_event")
        Event.objects.filter(pk=events[3].pk).update(error_message="the board is away " + "x" * 500)
        assert "the board is away xxx" in client.get(LIST).content.decode()
        page = client.get(f"{LIST}{events[3].pk}/change/").content.decode()
        box = 'aria-label="Error message" readonly>\nthe board is away ' + "x" * 500 + "</textarea>"
        assert box in page
        assert page.index("Status:") < page.index("Fingerprint:") < page.index("Lease until:")

    def test_has_no_room_for_an_error_where_there_is_none(
        self, client: Client, events: list[Event]
    ) -> None:
        page_for(client, "view_event")
        Event.objects.update(error_message="")
        assert "Error" not in client.get(f"{LIST}{events[0].pk}/change/").content.decode()

    def test_shows_no_payload_without_its_permission(
        self, client: Client, events: list[Event]
    ) -> None:
        page_for(client, "view_event")
        for url in (LIST, f"{LIST}{events[3].pk}/change/"):
            page = client.get(url).content.decode()
            assert SECRET not in page
            assert SIGNATURE not in page

    def test_shows_the_payload_with_its_permission(
        self, client: Client, events: list[Event]
    ) -> None:
        page_for(client, "view_event", "view_event_payload")
        page = client.get(f"{LIST}{events[3].pk}/change/").content.decode()
        assert SECRET in page
        assert SIGNATURE in page

    @pytest.mark.parametrize(
        "query",
        [
            f"body__contains={SECRET}",
            "body__regex=^.*customer",
            "signature__startswith=its",
            "body__isnull=False",
            "lane__gte=a",
        ],
    )
    def test_answers_no_question_about_what_is_hidden(
        self, client: Client, events: list[Event], query: str
    ) -> None:
        page_for(client, "view_event")
        assert client.get(f"{LIST}?{query}").status_code == 400

    def test_escapes_what_comes_from_outside(self, client: Client, events: list[Event]) -> None:
        page_for(client, "view_event", "view_event_payload", "replay_event")
        pages = [
            client.get(LIST).content.decode(),
            client.get(f"{LIST}{events[3].pk}/change/").content.decode(),
            act(client, "replay", events),
        ]
        for page in pages:
            assert EVIL not in page
        assert "&lt;script&gt;" in pages[0]
        assert "&lt;script&gt;" in pages[1]


class TestChanging:
    def test_is_for_nobody(self, admin_client: Client, events: list[Event]) -> None:
        url = f"{LIST}{events[0].pk}/"
        assert admin_client.get(f"{LIST}add/").status_code == 403
        assert admin_client.post(f"{LIST}add/", {"name": "os:system"}).status_code == 403
        assert admin_client.post(f"{url}change/", {"name": "os:system"}).status_code == 403
        assert admin_client.post(f"{url}delete/", {"post": "yes"}).status_code == 403
        act(admin_client, "delete_selected", events)
        assert Event.objects.filter(name=EVIL).count() == len(events)


ACTIONS = pytest.mark.parametrize("action", ["replay", "skip", "discard"])
OUTCOMES = pytest.mark.parametrize(
    ("action", "left", "verb"),
    [
        ("replay", ["WAITING", "WAITING"], "replayed"),
        ("skip", ["SKIPPED", "SKIPPED"], "skipped"),
        ("discard", [], "discarded"),
    ],
)


class TestDeciding:
    @OUTCOMES
    def test_moves_dead_letters_and_nothing_else(
        self, client: Client, events: list[Event], action: str, left: list[str], verb: str
    ) -> None:
        page_for(client, "view_event", "replay_event")
        page = confirm(client, act(client, action, events))
        assert statuses() == ["WAITING", "PUBLISHING", "SENT", *left, "SKIPPED"]
        assert f"2 {verb}, 0 were left alone." in page

    @OUTCOMES
    def test_moves_only_what_was_selected(
        self, client: Client, events: list[Event], action: str, left: list[str], verb: str
    ) -> None:
        page_for(client, "view_event", "replay_event")
        assert f"1 {verb}," in confirm(client, act(client, action, events[3:4]))
        assert statuses() == ["WAITING", "PUBLISHING", "SENT", *left[:1], "DEAD", "SKIPPED"]

    @ACTIONS
    def test_is_asked_about_first_and_nothing_is_written(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        page_for(client, "view_event", "replay_event")
        one, other = events[3], events[4]
        Event.objects.filter(pk=one.pk).update(fingerprint="a" * 16, error_message="order 1")
        Event.objects.filter(pk=other.pk).update(fingerprint="a" * 16, error_message="order 2")
        with CaptureQueriesContext(connection) as queries:
            page = act(client, action, events)
        written = {query["sql"].split('"')[1] for query in queries if not is_reading(query["sql"])}
        assert "jaiminho_celery_event" not in written
        assert "2 dead letters would be" in page
        assert f'value="{action.capitalize()} 2 dead letters"' in page
        assert ("a" * 16 in page, "order 1" in page, "order 2" in page) == (True, True, False)
        assert SECRET not in page
        assert statuses().count("DEAD") == 2

    @ACTIONS
    def test_takes_all_that_match_though_only_a_page_was_selected(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        page_for(client, "view_event", "replay_event")
        Event.objects.filter(pk=events[4].pk).update(stream="orders")
        more = [clone(events[3]) for _ in range(150)]
        page = act(client, action, more[-1:], "?status__exact=DEAD&stream=orders", across=True)
        assert "1 dead letter would be" in page
        page = act(client, action, more[-1:], "?status__exact=DEAD", across=True)
        assert "152 dead letters would be" in page
        assert "152 " in confirm(client, page, "?status__exact=DEAD")
        assert statuses().count("DEAD") == 0

    def test_leads_into_the_site_that_asks(
        self, admin_client: Client, events: list[Event], settings: Any
    ) -> None:
        site = AdminSite("operators")
        site.register(Event, EventAdmin)
        urls = types.ModuleType("urls_of_two_sites")
        addresses = [path("admin/", AdminSite("admin").urls), path("operators/", site.urls)]
        vars(urls)["urlpatterns"] = addresses
        settings.ROOT_URLCONF = urls
        data = {"action": "skip", "_selected_action": [events[3].pk]}
        answer = admin_client.post("/operators/jaiminho_celery/event/", data)
        links = answer.content.decode().split('class="breadcrumbs"')[1]
        assert '<a href="/operators/">' in links
        assert "/admin/" not in links

    def test_leaves_alone_what_died_after_the_page_was_shown(
        self, client: Client, events: list[Event]
    ) -> None:
        page_for(client, "view_event", "replay_event")
        page = act(client, "discard", events[:1], across=True)
        later = clone(events[3])
        assert "2 discarded" in confirm(client, page)
        assert list(Event.objects.dead()) == [later]

    def test_says_what_somebody_else_was_faster_with(
        self, client: Client, events: list[Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page_for(client, "view_event", "replay_event")
        page = act(client, "skip", events)
        monkeypatch.setattr(Event, "skip", lambda event, nudge: event.pk == events[3].pk)
        assert "1 skipped, 1 were left alone." in confirm(client, page)

    @ACTIONS
    def test_says_when_nothing_selected_is_dead(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        page_for(client, "view_event", "replay_event")
        page = act(client, action, events[:3])
        assert "None of the selected events is a dead letter." in page
        assert "would be" not in page

    @pytest.mark.parametrize("moment", ["", "yes", "2026-99-99T00:00:00", EVIL])
    def test_asks_again_when_the_confirmation_was_tampered_with(
        self, client: Client, events: list[Event], moment: str
    ) -> None:
        page_for(client, "view_event", "replay_event")
        data = form(act(client, "discard", events)) | {"shown_until": moment}
        page = client.post(LIST, data, follow=True).content.decode()
        assert "2 dead letters would be" in page
        assert statuses().count("DEAD") == 2

    @ACTIONS
    def test_escapes_what_comes_from_outside(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        page_for(client, "view_event", "replay_event")
        Event.objects.update(fingerprint="<b>1234567890")
        data = {"action": action, "_selected_action": [events[3].pk], "select_across": EVIL}
        page = client.post(f"{LIST}?stream={EVIL}", data).content.decode()
        assert "2 dead letters would be" in page  # whatever is said for "all" means all
        assert EVIL not in page
        assert "<b>123" not in page
        assert page.count("&lt;script&gt;") >= 3

    @ACTIONS
    def test_is_refused_without_its_permission(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        page_for(client, "view_event", "view_event_payload")
        for data in ({}, {"shown_until": "2999-01-01T00:00:00+00:00"}):
            page = act(client, action, events, **data)
            assert "would be" not in page
        assert statuses().count("DEAD") == 2
        assert f'value="{action}"' not in client.get(LIST).content.decode()

    @ACTIONS
    def test_is_refused_to_who_may_not_look(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        page_for(client, "replay_event")
        data = {"action": action, "_selected_action": [events[3].pk], "shown_until": "2999-01-01"}
        assert client.post(LIST, data).status_code == 403
        assert statuses().count("DEAD") == 2

    @ACTIONS
    def test_is_refused_without_a_login(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        act(client, action, events, shown_until="2999-01-01T00:00:00+00:00")
        assert statuses().count("DEAD") == 2

    def test_is_refused_without_the_token_against_forgery(
        self, admin_user: User, events: list[Event]
    ) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        data = {
            "action": "discard",
            "_selected_action": [events[3].pk],
            "shown_until": "2999-01-01",
        }
        assert client.post(LIST, data).status_code == 403
        assert statuses().count("DEAD") == 2


class TestFinding:
    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("?status__exact=DEAD", ["a", "b"]),
            ("?strategy__exact=keep-order", ["a", "b", "c"]),
            ("?stream=orders", ["a"]),
            ("?stream=", ["b", "c"]),
            ("?stream=never", []),
            ("?q=shop:b", ["b"]),
            ("?q=shop", []),
            ("?q=0123456789abcdef", ["a"]),
            ("?q=0123456789ABCDEF0", []),
            ("?q=%20shop:b%20", ["b"]),
            ("?q=%00", ["a", "b", "c"]),  # Django refuses to search for that, and says so
            ("?q=99999999999999999999999999", []),
            ("?q=%D9%A1", []),
        ],
    )
    def test_is_by_what_is_equal(self, admin_client: Client, query: str, found: list[str]) -> None:
        for name, own in {
            "a": {"stream": "orders", "fingerprint": "0123456789abcdef", "status": "DEAD"},
            "b": {"status": "DEAD"},
            "c": {"body": "orders shop shop:b"},
        }.items():
            event: dict[str, Any] = {"version": 1, "strategy": "keep-order", **own}
            Event.objects.create(name=f"shop:{name}", **event)
        response = admin_client.get(LIST + query)
        assert response.status_code == 200
        names = [event.name for event in response.context["cl"].result_list]
        assert sorted(names) == [f"shop:{name}" for name in found]

    def test_is_by_id_or_uuid(self, admin_client: Client, events: list[Event]) -> None:
        for term in (events[2].pk, events[2].uuid, events[2].uuid.hex):
            response = admin_client.get(f"{LIST}?q={term}")
            assert list(response.context["cl"].result_list) == [events[2]]

    def test_offers_the_streams_that_functions_know_and_the_one_asked_for(
        self, admin_client: Client
    ) -> None:
        page = admin_client.get(f"{LIST}?stream=former").content.decode()
        for stream in ("orders", "mails", "former"):
            assert f"stream={stream}" in page

    @pytest.mark.parametrize("query", ["", "?stream=orders", "?status__exact=DEAD", "?q=shop:b"])
    def test_never_reads_all_rows_or_any_payload(self, admin_client: Client, query: str) -> None:
        alike = {"version": 1, "name": "shop:b", "stream": "orders", "status": "DEAD"}
        Event.objects.bulk_create(Event(**alike) for _ in range(101))  # more than a page
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(LIST + query)
        about_events = [query["sql"] for query in queries if "celery_event" in query["sql"]]
        assert len(about_events) == 2  # the number, capped, and the rows of the page
        for sql in about_events:
            assert "LIMIT" in sql
            assert "DISTINCT" not in sql
            assert "LIKE" not in sql
            assert '"body"' not in sql

    def test_counts_no_further_than_anybody_pages(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch, events: list[Event]
    ) -> None:
        monkeypatch.setattr("parviraptor_celery.admin_tools.MOST_COUNTED", 4)
        response = admin_client.get(LIST)
        assert response.context["cl"].result_count == 4
        assert [event.pk for event in response.context["cl"].result_list] == [
            event.pk for event in reversed(events)
        ]


def act(
    client: Client,
    action: str,
    events: list[Event],
    query: str = "",
    *,
    across: bool = False,
    **more: str,
) -> str:
    """Choose an action for selected rows, as a person does on the list."""
    data = {"action": action, "_selected_action": [event.pk for event in events], **more}
    if across:
        data["select_across"] = "1"
    return client.post(LIST + query, data, follow=True).content.decode()


def confirm(client: Client, page: str, query: str = "") -> str:
    """Send the form of the page that asks, as the browser would."""
    return client.post(LIST + query, form(page), follow=True).content.decode()


def form(page: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    [own] = [part for part in re.findall("<form.*?</form>", page, re.S) if "shown_until" in part]
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', own):
        fields.setdefault(name, []).append(html.unescape(value))
    assert {"shown_until", "csrfmiddlewaretoken"} <= fields.keys()
    return fields


def clone(event: Event) -> Event:
    return Event.objects.create(
        version=1, strategy=event.strategy, name=event.name, stream=event.stream, status="DEAD"
    )


def is_reading(sql: str) -> bool:
    return sql.split()[0] in ("SELECT", "BEGIN", "SAVEPOINT", "RELEASE")
