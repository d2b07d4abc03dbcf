"""The admin: who may look, who may decide, and that nothing is run or edited by accident."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from jaiminho_celery.models import Event
from tests.unit.events import statuses

pytestmark = pytest.mark.django_db

LIST = "/admin/jaiminho_celery/event/"
EVIL = "<script>alert(1)</script>"
SECRET = "the-payload-of-a-customer"


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
            version=1, strategy="keep-order", body=body, signature="s", **texts, **more
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


def act(client: Client, action: str, events: list[Event]) -> str:
    data = {"action": action, "_selected_action": [event.pk for event in events]}
    return client.post(LIST, data, follow=True).content.decode()


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

    def test_shows_no_payload_without_its_permission(
        self, client: Client, events: list[Event]
    ) -> None:
        page_for(client, "view_event")
        for url in (LIST, f"{LIST}{events[3].pk}/change/"):
            assert SECRET not in client.get(url).content.decode()

    def test_shows_the_payload_with_its_permission(
        self, client: Client, events: list[Event]
    ) -> None:
        page_for(client, "view_event", "view_event_payload")
        assert SECRET in client.get(f"{LIST}{events[3].pk}/change/").content.decode()

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


class TestDeciding:
    @pytest.mark.parametrize(("action", "outcome"), [("replay", "WAITING"), ("skip", "SKIPPED")])
    def test_moves_dead_letters_and_nothing_else(
        self, client: Client, events: list[Event], action: str, outcome: str
    ) -> None:
        page_for(client, "view_event", "replay_event")
        page = act(client, action, events)
        assert statuses() == ["WAITING", "PUBLISHING", "SENT", outcome, outcome, "SKIPPED"]
        assert "2 events" in page

    @pytest.mark.parametrize("action", ["replay", "skip"])
    def test_is_refused_without_its_permission(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        page_for(client, "view_event", "view_event_payload")
        act(client, action, events)
        assert statuses().count("DEAD") == 2
        assert f'value="{action}"' not in client.get(LIST).content.decode()

    @pytest.mark.parametrize("action", ["replay", "skip"])
    def test_is_refused_without_a_login(
        self, client: Client, events: list[Event], action: str
    ) -> None:
        act(client, action, events)
        assert statuses().count("DEAD") == 2
