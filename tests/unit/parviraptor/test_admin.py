"""Queues in the admin: what it shows, who may decide, and that it asks before it does."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from parviraptor_celery import decisions
from parviraptor_celery.admin import JobAdmin
from parviraptor_celery.models import Pause
from tests.testapp.models import FreeJob, LaneJob, Note
from tests.unit.jobs import run_one, runs, statuses, work_off

pytestmark = pytest.mark.django_db

LANES, FREE = "/admin/testapp/lanejob/", "/admin/testapp/freejob/"
PAUSES = "/admin/parviraptor_celery/pause/"
EVIL = "<script>alert(1)</script>"
Kicked = Callable[[], list[tuple[str, dict[str, Any]]]]


def act(client: Client, page: str, action: str, jobs: Any, **more: str) -> Any:
    """Choose an action for ``jobs``; the answer asks, or says why not."""
    data = {"action": action, "_selected_action": [job.pk for job in jobs], **more}
    return client.post(page, data, follow=True)


def confirm(client: Client, page: str, asked: Any, **more: str) -> Any:
    """Answer yes to the page that asks."""
    form = asked.content.decode().split('<form method="post">')[1]
    names = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
    data: dict[str, list[str]] = {}
    for name, value in names:
        data.setdefault(name, []).append(value)
    return client.post(page, {**data, **more}, follow=True)


def decide(client: Client, page: str, action: str, jobs: Any, **more: str) -> Any:
    return confirm(client, page, act(client, page, action, jobs), **more)


def visitor(*permissions: str) -> Client:
    user = User.objects.create_user("operator", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def failed(**fields: Any) -> Any:
    return LaneJob.objects.create(status="FAILED", **fields)


class TestTheList:
    def test_shows_state_lane_error_and_progress(self, admin_client: Client) -> None:
        LaneJob.objects.create(shop="Graz", number=4711, error_message="away\nagain")
        runs(
            LaneJob.objects.create(),
            lease_until=timezone.now() + timedelta(hours=1),
            progress_done=3,
            progress_total=7,
            progress_note="rows",
        )
        page = admin_client.get(LANES).content.decode()
        for text in ("Graz", "4711", "away again", "3 of 7 rows", "NEW", "PROCESSING"):
            assert text in page

    def test_never_reads_all_rows_or_any_traceback(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(JobAdmin, "list_per_page", 2)
        LaneJob.objects.bulk_create(LaneJob() for _ in range(3))
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(LANES, {"status__exact": "NEW"}).status_code == 200
        asked = [q["sql"] for q in queries if "testapp_lanejob" in q["sql"]]
        assert asked
        assert all("LIMIT" in sql and "error_traceback" not in sql for sql in asked)

    @pytest.mark.parametrize(("term", "found"), [("k1", 1), ("999999", 0), ("x", 0), ("é٣", 0)])
    def test_finds_a_unique_key(self, admin_client: Client, term: str, found: int) -> None:
        FreeJob.enqueue(unique_key="k1")
        page = admin_client.get(FREE, {"q": term}).content.decode()
        assert page.count('name="_selected_action"') == found

    def test_finds_an_id(self, admin_client: Client) -> None:
        jobs = [FreeJob.enqueue() for _ in range(2)]
        page = admin_client.get(FREE, {"q": str(jobs[0].pk)}).content.decode()
        assert f'value="{jobs[0].pk}"' in page
        assert page.count('name="_selected_action"') == 1

    def test_is_for_queues_only(self) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"testapp\.Note is no job queue"):
            JobAdmin(Note, admin.site)


class TestOneJob:
    def test_says_why_it_does_not_run(self, admin_client: Client) -> None:
        first, second = LaneJob.enqueue(), LaneJob.enqueue()
        page = admin_client.get(f"{LANES}{second.pk}/change/").content.decode()
        assert f"It waits behind job {first.pk} of its lane" in page

    def test_leads_to_the_job_that_it_waits_for(self, admin_client: Client) -> None:
        first, second = LaneJob.enqueue(), LaneJob.enqueue()
        page = admin_client.get(f"{LANES}{second.pk}/change/").content.decode()
        assert f'<a href="{LANES}{first.pk}/change/">Job {first.pk}</a>' in page
        page = admin_client.get(f"{LANES}{first.pk}/change/").content.decode()
        assert f'<a href="{LANES}' not in page.split("Why:")[1].split("Fields")[0]

    def test_shows_a_long_error_in_full_in_boxes_that_scroll(self, admin_client: Client) -> None:
        message, traceback = "x" * 5000, "Traceback:\n" + "  y\n" * 50
        job = failed(error_message=message, error_traceback=traceback)
        page = admin_client.get(f"{LANES}{job.pk}/change/").content.decode()
        found = re.findall(r'aria-label="([^"]*)" readonly>\n(.*?)</textarea>', page, re.S)
        assert found == [("Error message", message), ("Traceback", traceback)]

    def test_has_no_room_for_errors_and_progress_where_there_are_none(
        self, admin_client: Client
    ) -> None:
        job = LaneJob.enqueue()
        page = admin_client.get(f"{LANES}{job.pk}/change/").content.decode()
        assert "Why:" in page
        assert "Error message:" not in page
        assert "Progress:" not in page
        LaneJob.objects.update(error_count=1, error_message="away", progress_done=3)
        page = admin_client.get(f"{LANES}{job.pk}/change/").content.decode()
        assert page.index("Progress:") < page.index("Error message:") < page.index("Fields")

    def test_shows_what_comes_from_outside_as_text(self, admin_client: Client) -> None:
        job = failed(
            error_message=EVIL, error_traceback=f'File "x", line 1\n  {EVIL}', progress_note=EVIL
        )
        LaneJob.objects.update(progress_done=1)
        for page in (f"{LANES}{job.pk}/change/", LANES):
            content = admin_client.get(page).content.decode()
            assert EVIL not in content
            assert "&lt;script&gt;alert(1)" in content
        assert EVIL not in act(admin_client, LANES, "retry", [job]).content.decode()

    def test_lets_own_columns_be_edited_and_no_others(self, admin_client: Client) -> None:
        job = LaneJob.enqueue(shop="Graz", script="")
        wanted = {"script": "changed", "result": "5", "status": "PROCESSED", "shop": "Linz"}
        wanted |= {"attempt": "7", "lane": "x", "run_after_0": "2030-01-01", "error_message": "x"}
        admin_client.post(f"{LANES}{job.pk}/change/", wanted)
        row = LaneJob.objects.get()
        assert (row.script, row.result) == ("changed", 5)
        assert (row.status, row.shop, row.attempt, row.lane) == ("NEW", "Graz", 0, job.lane)
        assert (row.run_after, row.error_message) == (None, "")

    def test_offers_a_priority_only_where_one_counts(self, admin_client: Client) -> None:
        assert 'name="priority"' in admin_client.get(f"{FREE}add/").content.decode()
        assert 'name="priority"' not in admin_client.get(f"{LANES}add/").content.decode()

    @pytest.mark.django_db(transaction=True)
    def test_can_be_added_and_wakes_a_worker(self, admin_client: Client, kicked: Kicked) -> None:
        fields = {"shop": "Graz", "number": "1", "script": "x", "priority": "0"}
        admin_client.post(f"{LANES}add/", {**fields, "result": "5", "status": "FAILED"})
        assert LaneJob.objects.get().status == "NEW"
        assert len(kicked()) == 1

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("way", ["the one", "the selected"])
    def test_can_be_deleted_and_wakes_who_waited_behind(
        self, admin_client: Client, kicked: Kicked, way: str
    ) -> None:
        later = LaneJob.objects.create(run_after=timezone.now() + timedelta(days=1))
        LaneJob.objects.bulk_create([LaneJob()])
        kicked()
        if way == "the one":
            admin_client.post(f"{LANES}{later.pk}/delete/", {"post": "yes"})
        else:
            data = {"action": "delete_selected", "_selected_action": later.pk, "post": "yes"}
            admin_client.post(LANES, data)
        assert LaneJob.objects.get().pk != later.pk
        assert [about["lanes"] for _, about in kicked()] == [[later.lane]]


class TestDeciding:
    @pytest.mark.parametrize("action", ["retry", "ignore", "cancel", "pause_lane", "resume_lane"])
    def test_is_asked_about_first_and_nothing_is_written(
        self, admin_client: Client, action: str
    ) -> None:
        jobs = [failed(shop="a"), LaneJob.enqueue(shop="b")]
        asked = act(admin_client, LANES, action, jobs)
        assert 'name="shown_until"' in asked.content.decode()
        assert statuses(LaneJob) == ["FAILED", "NEW"]
        assert not Pause.objects.exists()

    @pytest.mark.parametrize(
        ("action", "count", "button"),
        [
            ("retry", 1, "Retry 1 job"),
            ("ignore", 2, "Ignore 2 jobs"),
            ("pause_lane", 25, "Pause the lanes of 25 jobs"),
        ],
    )
    def test_shows_the_jobs_their_lanes_and_how_many_there_are(
        self, admin_client: Client, action: str, count: int, button: str
    ) -> None:
        jobs = [failed(shop=f"shop {number}") for number in range(count)]
        page = act(admin_client, LANES, action, jobs).content.decode()
        assert f'value="{button}"' in page
        assert '<th scope="col">Shop</th>' in page
        for job in jobs[:20]:
            assert f'<a href="{LANES}{job.pk}/change/">' in page
            assert f"<td>{job.shop}</td>" in page
        assert ("… and 5 more." in page) == (count == 25)

    def test_leads_into_the_site_that_asks(self, admin_client: Client, settings: Any) -> None:
        site = admin.AdminSite("operators")
        site.register(LaneJob, JobAdmin)
        urls = types.ModuleType("urls_of_two_sites")
        vars(urls)["urlpatterns"] = [
            path("admin/", admin.AdminSite("admin").urls),
            path("operators/", site.urls),
        ]
        settings.ROOT_URLCONF = urls
        job, second = failed(), LaneJob.enqueue()
        base = "/operators/testapp/lanejob/"
        page = act(admin_client, base, "retry", [job]).content.decode()
        assert f'<a href="{base}{job.pk}/change/">' in page
        assert "/admin/" not in page.split("breadcrumbs")[1]
        page = admin_client.get(f"{base}{second.pk}/change/").content.decode()
        assert f'<a href="{base}{job.pk}/change/">' in page

    def test_reads_the_values_of_lanes_with_their_jobs(self, admin_client: Client) -> None:
        asked = []
        for count in (1, 10):
            jobs = [failed(shop=f"shop {count} {number}") for number in range(count)]
            with CaptureQueriesContext(connection) as queries:
                act(admin_client, LANES, "pause_lane", jobs)
            asked.append(len(queries))
        assert asked[0] == asked[1]

    def test_retries_failed_jobs_with_their_dependents(self, admin_client: Client) -> None:
        LaneJob.enqueue_many([LaneJob(script="fail x"), LaneJob(), LaneJob(shop="other")])
        work_off(LaneJob)
        assert statuses(LaneJob) == ["FAILED", "FAILED", "PROCESSED"]
        answer = decide(admin_client, LANES, "retry", LaneJob.objects.all())
        assert statuses(LaneJob) == ["NEW", "NEW", "PROCESSED"]
        assert "2 jobs retried." in answer.content.decode()

    def test_leaves_a_dependent_alone_whose_cause_is_not_selected(
        self, admin_client: Client
    ) -> None:
        cause = failed()
        dependent = failed(failed_by=cause.pk)
        answer = decide(admin_client, LANES, "retry", [dependent])
        assert statuses(LaneJob) == ["FAILED", "FAILED"]
        assert "0 jobs retried. What was selected was left alone." in answer.content.decode()

    def test_ignores_failed_jobs(self, admin_client: Client) -> None:
        jobs = [failed(), LaneJob.enqueue(shop="b")]
        decide(admin_client, LANES, "ignore", jobs)
        assert statuses(LaneJob) == ["IGNORED", "NEW"]

    def test_cancels_waiting_jobs(self, admin_client: Client) -> None:
        jobs = [FreeJob.objects.create(status=status) for status in ("NEW", "DEFERRED", "FAILED")]
        decide(admin_client, FREE, "cancel", jobs)
        assert statuses(FreeJob) == ["IGNORED", "IGNORED", "FAILED"]

    def test_pauses_and_resumes_each_lane_of_the_jobs(self, admin_client: Client) -> None:
        jobs = LaneJob.enqueue_many([LaneJob(shop=shop) for shop in "aab"])
        LaneJob.enqueue(shop="c")
        answer = decide(admin_client, LANES, "pause_lane", LaneJob.objects.filter(shop__in="ab"))
        assert "2 lanes paused." in answer.content.decode()
        assert {pause.lane for pause in Pause.objects.all()} == {job.lane for job in jobs}
        assert run_one(LaneJob) == 1
        decide(admin_client, LANES, "resume_lane", jobs)
        assert not Pause.objects.exists()

    def test_keeps_the_reason_of_a_pause(self, admin_client: Client) -> None:
        decide(admin_client, LANES, "pause_lane", [LaneJob.enqueue()], reason="wait for Ann")
        assert Pause.objects.get().reason == "wait for Ann"

    def test_leaves_alone_what_changed_after_the_page_was_shown(self, admin_client: Client) -> None:
        job = failed()
        asked = act(admin_client, LANES, "retry", [job])
        LaneJob.objects.update(modification_date=timezone.now() + timedelta(seconds=5))
        confirm(admin_client, LANES, asked)
        assert statuses(LaneJob) == ["FAILED"]

    def test_says_that_nothing_selected_is_concerned(self, admin_client: Client) -> None:
        answer = act(admin_client, LANES, "retry", [LaneJob.enqueue()])
        assert "There are no failed jobs among the selected." in answer.content.decode()

    def test_takes_a_moment_that_was_made_up_for_a_question(self, admin_client: Client) -> None:
        asked = act(admin_client, LANES, "retry", [failed()], shown_until="2026-99-99")
        assert 'name="shown_until"' in asked.content.decode()
        assert statuses(LaneJob) == ["FAILED"]

    def test_goes_on_over_chunks_and_ends_at_its_limit(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decisions, "CHUNK", 2)
        monkeypatch.setattr(decisions, "MOST_AT_ONCE", 4)
        jobs = [FreeJob.objects.create(status="FAILED") for _ in range(5)]
        decide(admin_client, FREE, "ignore", jobs)
        assert statuses(FreeJob) == ["IGNORED"] * 4 + ["FAILED"]

    def test_an_independent_queue_has_no_lanes_to_pause(self, admin_client: Client) -> None:
        FreeJob.enqueue()
        page = admin_client.get(FREE).content.decode()
        assert 'value="cancel"' in page
        assert "pause_lane" not in page


class TestPermissions:
    ACTIONS = pytest.mark.parametrize(
        "action", ["retry", "ignore", "cancel", "pause_lane", "resume_lane"]
    )

    @ACTIONS
    def test_whoever_may_only_look_can_do_nothing(self, action: str) -> None:
        client = visitor("view_lanejob", "add_pause", "delete_pause")
        jobs = [failed(), LaneJob.enqueue(shop="b")]
        page = client.get(LANES).content.decode()
        assert f'value="{action}"' not in page
        act(client, LANES, action, jobs, shown_until=timezone.now().isoformat())
        assert statuses(LaneJob) == ["FAILED", "NEW"]
        assert not Pause.objects.exists()

    @pytest.mark.parametrize(
        ("permissions", "actions"),
        [
            ((), {"retry", "ignore", "cancel"}),
            (("add_pause",), {"retry", "ignore", "cancel", "pause_lane"}),
            (("delete_pause",), {"retry", "ignore", "cancel", "resume_lane"}),
        ],
    )
    def test_whoever_may_change_decides_and_pausing_takes_more(
        self, permissions: tuple[str, ...], actions: set[str]
    ) -> None:
        failed()
        page = visitor("view_lanejob", "change_lanejob", *permissions).get(LANES)
        options = set(re.findall(r'<option value="(\w+)"', page.content.decode()))
        assert options - {"delete_selected"} == actions


@pytest.mark.django_db(transaction=True)
class TestPauses:
    def test_a_whole_queue_is_paused_by_adding_one(self, admin_client: Client) -> None:
        admin_client.post(f"{PAUSES}add/", {"queue": "testapp.freejob", "reason": "rates"})
        FreeJob.enqueue()
        assert run_one(FreeJob) == 0
        assert Pause.objects.get().reason == "rates"
        page = admin_client.get(PAUSES).content.decode()
        assert "the whole queue" in page

    def test_the_list_says_which_lane(self, admin_client: Client) -> None:
        LaneJob.enqueue(shop=EVIL, number=7).pause_lane(EVIL)
        page = admin_client.get(PAUSES).content.decode()
        assert "number=7" in page
        assert EVIL not in page

    def test_no_queue_is_paused_before_one_is_chosen(self, admin_client: Client) -> None:
        assert '<option value="" selected>' in admin_client.get(f"{PAUSES}add/").content.decode()
        page = admin_client.post(f"{PAUSES}add/", {"queue": "", "reason": ""}).content.decode()
        assert "This field is required" in page
        assert not Pause.objects.exists()

    def test_the_list_offers_to_resume(self, admin_client: Client) -> None:
        FreeJob.pause()
        page = admin_client.get(PAUSES).content.decode()
        assert '<option value="delete_selected">Resume (delete the selected pauses)' in page

    def test_an_unknown_queue_is_refused(self, admin_client: Client) -> None:
        page = admin_client.post(f"{PAUSES}add/", {"queue": "auth.user", "reason": ""})
        assert "Select a valid choice" in page.content.decode()
        assert not Pause.objects.exists()

    def test_deleting_one_resumes_and_wakes_workers(
        self, admin_client: Client, kicked: Kicked
    ) -> None:
        job = LaneJob.enqueue()
        job.pause_lane()
        FreeJob.enqueue()
        FreeJob.pause()
        kicked()
        pause = Pause.objects.get(queue="testapp.lanejob")
        admin_client.post(f"{PAUSES}{pause.pk}/delete/", {"post": "yes"})
        assert [arguments["lanes"] for _, arguments in kicked()] == [[job.lane]]
        left = [pause.pk for pause in Pause.objects.all()]
        data = {"action": "delete_selected", "_selected_action": left, "post": "yes"}
        admin_client.post(PAUSES, data)
        assert [arguments["queue"] for _, arguments in kicked()] == ["testapp.FreeJob"]
        assert not Pause.objects.exists()

    def test_one_of_a_queue_that_is_gone_can_be_deleted(self, admin_client: Client) -> None:
        pause = Pause.objects.create(queue="gone.job", lane="x")
        assert "gone.job" in admin_client.get(PAUSES).content.decode()
        admin_client.post(f"{PAUSES}{pause.pk}/delete/", {"post": "yes"})
        assert not Pause.objects.exists()

    def test_none_is_edited(self, admin_client: Client) -> None:
        pause = Pause.objects.create(queue="testapp.freejob", reason="x")
        admin_client.post(f"{PAUSES}{pause.pk}/change/", {"queue": "y", "reason": "y"})
        pause.refresh_from_db()
        assert (pause.queue, pause.reason) == ("testapp.freejob", "x")
