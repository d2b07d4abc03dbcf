"""``queue-health/`` and the table for people: what they say, and when the first is 503."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from jaiminho_celery import sweep as relay
from jaiminho_celery.models import Tick as RelayTick
from parviraptor_celery import monitoring, sweep, tasks, worker
from parviraptor_celery.foreground import ForegroundWorker
from parviraptor_celery.models import Tick
from parviraptor_celery.schedule import beat_schedule
from tests.testapp.models import FifoJob, FreeJob, LaneJob
from tests.unit.jobs import runs

pytestmark = pytest.mark.django_db

INTERVAL = 30
PAGE = "/queue-health/"


def ago(seconds: float) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


def happened(name: str, seconds_ago: float, ticks: Any = Tick) -> None:
    ticks.objects.update_or_create(name=name, defaults={"last_at": ago(seconds_ago)})


@pytest.fixture
def _well() -> None:
    """Sweep and relay came just now."""
    happened(sweep.TICK, 1)
    happened(relay.TICK, 1, RelayTick)


@pytest.mark.usefixtures("_well")
class TestHealth:
    def test_is_200_when_everything_is_fine(self, client: Client) -> None:
        response = client.get(PAGE)
        assert (response.status_code, response["Content-Type"]) == (200, "application/json")
        body = response.json()
        assert (body["status"], body["problems"]) == ("ok", [])
        assert body["queues"]["testapp.FreeJob"] == {
            "failed": 0,
            "long_processing": 0,
            "long_unprocessed": 0,
            "paused": 0,
            "is_paused": False,
        }

    def test_is_503_for_each_thing_that_needs_a_person(self, client: Client) -> None:
        FreeJob.objects.create(status="FAILED")
        lease, since = timezone.now() + timedelta(hours=1), ago(60 * 31)
        runs(FifoJob.objects.create(), lease_until=lease, modification_date=since)
        LaneJob.objects.create(creation_date=ago(60 * 961))
        response = client.get(PAGE)
        body = response.json()
        assert (response.status_code, body["status"]) == (503, "unhealthy")
        assert body["queues"]["testapp.FreeJob"]["failed"] == 1
        assert body["queues"]["testapp.FifoJob"]["long_processing"] == 1
        assert body["queues"]["testapp.LaneJob"]["long_unprocessed"] == 1
        assert len(body["problems"]) == 3

    def test_counts_pauses_which_are_no_problem(self, client: Client) -> None:
        LaneJob.pause(shop="a", number=0)
        LaneJob.pause()
        FifoJob.enqueue().pause_lane()
        response = client.get(PAGE)
        queues = response.json()["queues"]
        pauses = {label: (q["paused"], q["is_paused"]) for label, q in queues.items()}
        assert response.status_code == 200
        assert pauses["testapp.LaneJob"] == (2, True)
        assert pauses["testapp.FifoJob"] == (1, False)
        assert pauses["testapp.FreeJob"] == (0, False)

    def test_tells_the_ages_of_sweeps_and_relay(self, client: Client) -> None:
        happened("dispatch:beat", 40)
        happened("dispatch:worker", 20)
        happened(sweep.TICK, 20)
        happened(relay.TICK, 10, RelayTick)
        ages = client.get(PAGE).json()["seconds_since"]
        assert {what: round(age, -1) for what, age in ages.items()} == {
            "beat": 40,
            "worker": 20,
            "sweep": 20,
            "relay": 10,
        }

    @pytest.mark.parametrize(("seconds", "status"), [(3 * INTERVAL - 5, 200), (95, 503)])
    def test_is_503_when_nobody_swept_for_three_intervals(
        self, client: Client, seconds: float, status: int
    ) -> None:
        happened(sweep.TICK, seconds)
        assert client.get(PAGE).status_code == status

    def test_does_not_miss_beat_while_workers_sweep(self, client: Client) -> None:
        happened("dispatch:beat", 100_000)
        happened("dispatch:worker", 1)
        assert client.get(PAGE).status_code == 200

    @pytest.mark.parametrize(("seconds", "status"), [(1, 200), (100_000, 503)])
    def test_is_503_when_the_relay_is_missing(
        self, client: Client, seconds: float, status: int
    ) -> None:
        happened(relay.TICK, seconds, RelayTick)
        response = client.get(PAGE)
        assert response.status_code == status
        if status == 503:
            assert "The last relay was 100000 seconds ago" in response.json()["problems"][0]

    def test_takes_the_command_for_a_relay_too(self, client: Client) -> None:
        happened(relay.TICK, 100_000, RelayTick)
        call_command("events_relay", "--stream", "mails")
        assert client.get(PAGE).status_code == 503
        call_command("events_relay")
        assert client.get(PAGE).status_code == 200

    def test_reports_a_queue_whose_database_is_away(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> Any:
            raise OperationalError("secret host")

        monkeypatch.setattr(FreeJob, "rows", fail)
        response = client.get(PAGE)
        assert response.status_code == 503
        assert response.json()["problems"] == [
            "testapp.FreeJob can't be counted (OperationalError)."
        ]
        assert "testapp.LaneJob" in response.json()["queues"]

    def test_is_for_staff_only_where_monitoring_is_closed(
        self, client: Client, settings: Any
    ) -> None:
        settings.PARVIRAPTOR_CONFIG = {"MONITORING_IS_OPEN": False}
        assert client.get(PAGE).status_code == 403
        client.force_login(User.objects.create_user("operator", is_staff=True))
        assert client.get(PAGE).status_code == 200

    def test_is_for_reading_and_never_cached(self, client: Client) -> None:
        assert client.post(PAGE).status_code == 405
        assert "no-store" in client.get(PAGE)["Cache-Control"]


def test_a_project_that_nobody_ever_swept_is_not_well(client: Client) -> None:
    response = client.get(PAGE)
    assert response.status_code == 503
    assert response.json()["seconds_since"] == {
        "beat": None,
        "worker": None,
        "sweep": None,
        "relay": None,
    }
    assert (
        "There was no sweep yet; one is expected every 30 seconds." in (response.json()["problems"])
    )


class TestWhoAsks:
    def run_dispatch(self, app: Celery, **kwargs: Any) -> None:
        app.tasks["parviraptor_celery.dispatch_jobs"].run(**kwargs)

    @pytest.mark.parametrize("asker", ["beat", "worker"])
    def test_is_noted_also_when_another_has_just_swept(
        self, celery_in_memory: Celery, asker: str
    ) -> None:
        for _ in range(2):
            self.run_dispatch(celery_in_memory, asked_by=asker)
            ages = monitoring.report().ages
            assert {what for what, age in ages.items() if age is not None} == {asker, "sweep"}
            Tick.objects.filter(name=f"dispatch:{asker}").delete()

    @pytest.mark.parametrize("kwargs", [{}, {"asked_by": ""}, {"asked_by": "somebody"}])
    def test_is_not_noted_if_it_is_nobody_known(
        self, celery_in_memory: Celery, kwargs: dict[str, str]
    ) -> None:
        self.run_dispatch(celery_in_memory, **kwargs)
        assert list(Tick.objects.filter(name__startswith="dispatch:b")) == []
        assert monitoring.report().ages["sweep"] is not None

    def test_beat_says_that_it_is_beat(self) -> None:
        assert beat_schedule()["parviraptor_celery.dispatch_jobs"]["kwargs"] == {"asked_by": "beat"}

    def test_a_worker_says_that_it_is_a_worker(
        self, kicked: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Timer:
            def call_repeatedly(self, _: float, call: Any, args: Any, kwargs: Any) -> None:
                call(*args, **kwargs)

        class Worker:
            timer = Timer()

        tasks.sweep_without_beat(Worker())
        worker.ask_regularly(Worker(), "jaiminho_celery.relay_events", 1)
        assert kicked() == [
            ("parviraptor_celery.dispatch_jobs", {"asked_by": "worker"}),
            ("jaiminho_celery.relay_events", {}),
        ]


class TestTheTable:
    def test_shows_pauses_and_progress_escaped(self, client: Client) -> None:
        FreeJob.pause(reason="<b>why</b>")
        lease = timezone.now() + timedelta(hours=1)
        runs(
            FifoJob.objects.create(),
            lease_until=lease,
            progress_done=12345,
            progress_total=20000,
            progress_note="<i>rows</i>",
        )
        page = client.get("/open-queue-entries/").content.decode()
        assert "testapp.FreeJob, since " in page
        assert ": &lt;b&gt;why&lt;/b&gt;" in page
        assert '<progress max="20000" value="12345">' in page
        assert "&lt;i&gt;rows&lt;/i&gt;" in page

    def test_says_nothing_of_pauses_and_progress_where_there_are_none(self, client: Client) -> None:
        FreeJob.enqueue()
        page = client.get("/open-queue-entries/").content.decode()
        assert "<h2>" not in page


def test_process_queue_alone_is_healthy(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    happened(relay.TICK, 1, RelayTick)
    stop = threading.Event()
    monkeypatch.setattr(FifoJob, "process", lambda self: stop.set())
    FifoJob.enqueue()
    ForegroundWorker(FifoJob, stop).run()
    assert client.get(PAGE).status_code == 200
