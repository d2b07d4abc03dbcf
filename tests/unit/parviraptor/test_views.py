"""The two pages: who may see them, and what they say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

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
    assert re.findall(r"<th>(.*?)</th>", page)[1:] == ["NEW", "PROCESSING", "DEFERRED", "FAILED"]
    assert rows["testapp.FreeJob"] == ["1", "0", "0", "1"]
    assert rows["testapp.FifoJob"] == ["0", "0", "0", "0"]


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
