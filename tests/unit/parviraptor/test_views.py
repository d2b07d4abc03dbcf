"""The two pages: who may see them, and what they say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from parviraptor_celery import views
from tests.testapp.models import FifoJob, FreeJob

pytestmark = pytest.mark.django_db

PAGES = pytest.mark.parametrize("page", ["/queue-monitoring/", "/open-queue-entries/"])


def test_the_pages_are_where_they_were_promised() -> None:
    assert reverse("parviraptor_celery:queue-monitoring") == "/queue-monitoring/"
    assert reverse("parviraptor_celery:open-queue-entries") == "/open-queue-entries/"


def test_all_is_well(client: Client) -> None:
    response = client.get("/queue-monitoring/")
    assert response.status_code == 200
    assert response.content.decode() == "Alles OK"
    assert response["Content-Type"].startswith("text/plain")


def test_each_queue_with_a_problem_has_its_line_and_the_others_none(client: Client) -> None:
    FifoJob.objects.create(status="FAILED")
    FreeJob.objects.create(status="FAILED")
    FreeJob.objects.create(status="FAILED")
    response = client.get("/queue-monitoring/")
    assert response.status_code == 200
    assert response.content.decode().splitlines() == [
        "There are 1 failed, 0 long processing and 0 long unprocessed FifoJobs.",
        "There are 2 failed, 0 long processing and 0 long unprocessed FreeJobs.",
    ]


def test_the_table_lists_every_queue_with_its_counts(client: Client) -> None:
    FreeJob.objects.create()
    FreeJob.objects.create(status="FAILED")
    page = client.get("/open-queue-entries/").content.decode()
    assert "<style>" in page
    rows = {
        cells[0]: cells[1:]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.S)
        if (cells := re.findall(r"<td[^>]*>(.*?)</td>", row, re.S))
    }
    assert re.findall(r"<th[^>]*>(.*?)</th>", page)[1:] == [
        "NEW",
        "PROCESSING",
        "DEFERRED",
        "FAILED",
    ]
    assert rows["testapp.FreeJob"] == ["1", "0", "0", "1"]
    assert rows["testapp.FifoJob"] == ["0", "0", "0", "0"]


def shown_to(client: Client, *permissions: str, is_staff: bool = True) -> str:
    """Return the table as it is shown to somebody with these permissions."""
    user = User.objects.create_user("somebody", is_staff=is_staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return client.get("/open-queue-entries/").content.decode()


class TestLinksToTheAdmin:
    @pytest.fixture(autouse=True)
    def something_to_look_at(self) -> None:
        FreeJob.objects.create(status="FAILED")
        FreeJob.pause()

    def test_lead_from_a_count_to_its_jobs(self, client: Client) -> None:
        page = shown_to(client, "view_freejob", "view_pause")
        links = re.findall(r'href="(/admin/.*?)"', page)
        assert links == [
            "/admin/testapp/freejob/",
            "/admin/testapp/freejob/?status__exact=FAILED",
            "/admin/parviraptor_celery/pause/",
        ]
        assert [client.get(link).status_code for link in links] == [200, 200, 200]

    def test_are_there_for_whom_the_admin_lets_in(self, client: Client) -> None:
        assert "href" not in client.get("/open-queue-entries/").content.decode()
        assert "href" not in shown_to(client, "view_freejob", "view_pause", is_staff=False)

    def test_lead_nowhere_without_the_permission_to_look(self, client: Client) -> None:
        assert "href" not in shown_to(client, "delete_freejob")

    def test_are_missing_where_the_admin_does_not_have_the_queue(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(views, "reverse", lambda name: reverse(f"no-{name}"))
        assert "href" not in shown_to(client, "view_freejob", "view_pause")


def test_moments_are_local_and_say_their_zone(client: Client, settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Kolkata"
    FreeJob.pause()
    page = client.get("/open-queue-entries/").content.decode()
    assert re.search(r"since 20[-0-9]+ [:0-9]+ IST", page)
    assert re.search(r"As of 20[-0-9]+ [:0-9]+ IST", page)


@PAGES
class TestAccess:
    def test_is_open_by_default(self, client: Client, page: str) -> None:
        assert client.get(page).status_code == 200

    def test_can_be_closed(self, client: Client, page: str, settings: Any) -> None:
        settings.PARVIRAPTOR_CONFIG = {"MONITORING_IS_OPEN": False}
        assert client.get(page).status_code == 403
        client.force_login(User.objects.create_user("visitor"))
        assert client.get(page).status_code == 403

    def test_stays_open_for_staff(self, client: Client, page: str, settings: Any) -> None:
        settings.PARVIRAPTOR_CONFIG = {"MONITORING_IS_OPEN": False}
        client.force_login(User.objects.create_user("operator", is_staff=True))
        assert client.get(page).status_code == 200

    def test_is_for_reading(self, client: Client, page: str) -> None:
        assert client.post(page).status_code == 405
        assert client.head(page).status_code == 200

    def test_is_never_cached(self, client: Client, page: str) -> None:
        assert "no-store" in client.get(page)["Cache-Control"]
