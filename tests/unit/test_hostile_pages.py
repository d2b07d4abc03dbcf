"""Markup and control characters in every text that a page or a command shows: text they remain."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.db import connection, models
from django.test import Client
from django.utils import timezone

import jaiminho_celery
import parviraptor_celery
from jaiminho_celery.models import Event
from parviraptor_celery.foreground import ForegroundWorker
from parviraptor_celery.models import Pause
from tests.faults.canaries import CONTROLS, MARKUP, ORDERS, TAG, Found, listening
from tests.testapp.models import FreeJob, LaneJob
from tests.unit.jobs import runs

pytestmark = pytest.mark.django_db

QUEUES = (LaneJob, FreeJob)
OURS = (Event, Pause, *QUEUES)
BOUND = {"status", "waiting_key", "running_lane"}
"""Columns that a CHECK ties to others: they can't hold anything."""


def texts_of(model: Any) -> list[str]:
    """Return the columns of a model that can hold any text, whoever may write it."""
    kinds = (models.CharField, models.TextField)
    fields = [field for field in model._meta.concrete_fields if isinstance(field, kinds)]
    return [field.name for field in fields if field.name not in BOUND]


def fill(model: Any, value: Callable[[str], str]) -> None:
    """Write a text into every column that takes one, past all that the model would refuse."""
    table, quote = model._meta.db_table, connection.ops.quote_name
    with connection.cursor() as cursor:
        for name in texts_of(model):
            column = quote(model._meta.get_field(name).column)
            # What runs has its lane in a second column, and a CHECK compares the two.
            which = "lease_until IS NULL" if name == "lane" else "1 = 1"
            cursor.execute(f'UPDATE "{table}" SET {column} = %s WHERE {which}', [value(name)])


def tagged(name: str) -> str:
    return f"canary {name} {MARKUP}"


@pytest.fixture
def rows() -> None:
    """A row of every state; nothing of them is a person's doing."""
    soon = timezone.now() + timedelta(hours=1)
    alike: dict[str, Any] = {"name": "n", "version": 1, "strategy": "keep-order", "body": "b"}
    for status in ("WAITING", "DEAD", "DEAD", "SKIPPED"):
        Event.objects.create(**alike, status=status, fingerprint=str(timezone.now()))
    Event.objects.create(**alike, status="SENT", sent_at=timezone.now())
    for queue in QUEUES:
        for status in ("NEW", "DEFERRED", "FAILED", "IGNORED", "SQUASHED", "PROCESSED"):
            queue.objects.create(status=status)
        runs(queue.objects.create(), lease_until=soon, progress_done=1, progress_total=3)
    LaneJob.objects.filter(status="NEW").get().pause_lane("x")
    FreeJob.pause(reason="x")


@pytest.fixture
def marked(rows: None, monkeypatch: pytest.MonkeyPatch, admin_user: User) -> Client:
    """Markup in every text column, in the names of queues and people, and in the log."""
    for model in (Event, *QUEUES):
        fill(model, tagged)
    Pause.objects.update(reason=tagged("reason"))
    Pause.objects.create(queue=tagged("queue"), lane="x", reason=tagged("reason"))
    for model in OURS:
        monkeypatch.setattr(model._meta, "verbose_name", f"canary verbose {MARKUP}")
        monkeypatch.setattr(model._meta, "verbose_name_plural", f"canary verboses {MARKUP}")
        monkeypatch.setattr(model._meta.app_config, "verbose_name", f"canary app {MARKUP}")
        for row in model._base_manager.values_list("pk", flat=True):
            LogEntry.objects.create(
                user=admin_user,
                content_type=ContentType.objects.get_for_model(model),
                object_id=row,
                object_repr=MARKUP,
                action_flag=CHANGE,
                change_message=MARKUP,
            )
    User.objects.filter(pk=admin_user.pk).update(username=MARKUP, first_name=MARKUP)
    client = Client()
    client.force_login(admin_user)
    return client


def pages(client: Client) -> dict[str, str]:
    """Return every page of both apps, by address."""
    addresses = ["/admin/", "/open-queue-entries/"]
    queries = ["", "?o=-1", f"?q={TAG}", "?status__exact=DEAD", "?stream=x", "?p=1"]
    for model in OURS:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        addresses += [f"/admin/{model._meta.app_label}/", f"{base}add/"]
        addresses += [base + query for query in queries]
        for row in model._base_manager.values_list("pk", flat=True):
            addresses += [f"{base}{row}/{view}/" for view in ("change", "history", "delete")]
    found = {address: client.get(address, follow=True) for address in addresses}
    return {address: answer.content.decode() for address, answer in found.items()}


def questions(client: Client) -> dict[str, str]:
    """Return the pages that ask before something is done, with markup wherever one is told."""
    found = {}
    for model in OURS:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        everything = list(model._base_manager.values_list("pk", flat=True))
        for action in (*_ACTIONS, MARKUP):
            data = {"action": action, "_selected_action": everything, "select_across": MARKUP}
            data |= {"shown_until": MARKUP, "reason": MARKUP, "index": "0"}
            for query in ("", f"?_changelist_filters={MARKUP}&stream={MARKUP}&q={MARKUP}"):
                answer = client.post(f"{base}{query}", data, follow=True)
                found[f"{model.__name__} {action} {query}"] = answer.content.decode()
    return found


_ACTIONS = (
    *("replay", "skip", "discard", "retry", "ignore", "cancel", "pause_lane", "resume_lane"),
    "delete_selected",
)


def test_no_page_takes_a_text_for_markup(marked: Client) -> None:
    seen = pages(marked)
    assert len(seen) > 60
    for address, page in seen.items():
        assert Found(page).from_outside == [], address
    together = "".join(seen.values())
    shown = {name for model in (Event, *QUEUES) for name in texts_of(model) if name in together}
    missing = [name for name in sorted(shown) if f"canary {name}" not in together]
    assert set(missing) <= {"lane", "strategy", "progress_note", "body", "leased_by", "unique_key"}
    assert "canary verboses &lt;/script&gt;" in together


def test_no_page_that_asks_takes_a_text_for_markup(marked: Client) -> None:
    seen = questions(marked)
    for what, page in seen.items():
        assert Found(page).from_outside == [], what
    asking = [page for page in seen.values() if 'name="shown_until"' in page]
    assert len(asking) > 10
    assert any("canary error_message &lt;" in page for page in asking)


def test_what_the_address_says_is_text_too(marked: Client) -> None:
    for model in OURS:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        for name in (
            "q",
            "stream",
            "status__exact",
            "strategy__exact",
            "queue",
            "o",
            "p",
            "e",
            "x",
        ):
            answer = marked.get(base, {name: MARKUP}, follow=True)
            assert Found(answer.content.decode()).from_outside == [], (base, name)
        for path in (f"{base}{MARKUP}/change/", f"{base}{MARKUP}/delete/", f"/{base}"):
            page = marked.get(path, follow=True).content.decode()
            assert Found(page).from_outside == [], path
    for page in ("/queue-monitoring/", "/queue-health/", "/open-queue-entries/"):
        answer = marked.get(page, {"q": MARKUP})
        assert TAG not in (answer.content.decode() if "open" not in page else "")


def test_json_is_json_and_text_is_text(marked: Client) -> None:
    health = marked.get("/queue-health/")
    assert health["Content-Type"] == "application/json"
    assert set(json.loads(health.content)) == {"status", "problems", "queues", "seconds_since"}
    assert marked.get("/queue-monitoring/")["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "page", [f"<p title='{MARKUP}'>", f"<p>{MARKUP}", "<a href=' JavaScript:alert(1)'>"]
)
def test_markup_that_got_through_would_be_seen(page: str) -> None:
    assert Found(page).from_outside
    assert not Found("<p title='x'>").from_outside


COMMANDS: dict[str, list[list[str]]] = {
    "dead_letters": [
        ["list"],
        ["list", "--stream", ORDERS],
        ["list", "--using", ORDERS],
        ["replay", "--all", "--dry-run"],
        ["replay", "--id", ORDERS],
        ["skip", "--name", ORDERS],
        ["discard", "--key", ORDERS, "--no-input"],
        ["discard", "--all", "--no-input"],
    ],
    "events_relay": [[], ["--stream", ORDERS], ["--stream", "no such"]],
    "event_cleaner": [[], ["--dry-run"], ["--state", ORDERS]],
    "clean_old_processed_jobs": [["--all-queues"], ["--queue", ORDERS], ["--queue", "auth.User"]],
    "process_queue": [["testapp", "lanejob"], [ORDERS, "lanejob"], ["testapp", ORDERS]],
    "check": [["--database", "default"]],
}
"""Every command of both apps, and Django's that shows our checks."""


def test_every_command_is_among_these() -> None:
    folders = [Path(app.__file__).parent / "management" / "commands" for app in _APPS]
    found = {path.stem for folder in folders for path in folder.glob("[!_]*.py")}
    assert found == set(COMMANDS) - {"check"}


_APPS: Any = (jaiminho_celery, parviraptor_celery)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_says_or_logs_what_a_terminal_would_obey(
    rows: None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in (Event, *QUEUES):
        fill(model, lambda name: f"{name} {ORDERS}")
    Event.objects.update(signature="")
    monkeypatch.setattr(ForegroundWorker, "run", lambda worker: worker.run_once())
    for arguments in COMMANDS[command]:
        out = StringIO()
        with listening() as lines:
            try:
                call_command(command, *arguments, stdout=out, stderr=out)
            except CommandError as error:
                out.write(str(error))
        for line in (*out.getvalue().splitlines(), *lines):
            assert not CONTROLS.search(line.replace("\t", "")), (arguments, line)


def test_no_job_says_why_in_what_a_terminal_would_obey(rows: None) -> None:
    Pause.objects.all().delete()
    for pause in (False, True):
        if pause:
            LaneJob.pause(reason=ORDERS)
            FreeJob.pause(reason=ORDERS)
        for queue in QUEUES:
            fill(queue, lambda name: f"{name} {ORDERS}")
            reasons = [str(job.why()) for job in queue.objects.all()]
            assert not [reason for reason in reasons if CONTROLS.search(reason)]
            assert [reason for reason in reasons if "\\x1b" in reason]
