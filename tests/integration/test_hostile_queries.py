"""Whatever a person types into an address, a form or a command is text to all three engines."""

from __future__ import annotations

from io import StringIO
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from jaiminho_celery import dead_letters
from jaiminho_celery.models import Event
from parviraptor_celery import broker
from tests.faults import IS_WIDE
from tests.faults.canaries import PAYLOAD, contents
from tests.testapp.models import FreeJob, LaneJob

VALUES = {
    "sql": quote("x' OR 1=1; DROP TABLE testapp_lanejob; --"),
    "nul": "a%00b",
    "no utf-8": "%ff%fe%c0%80",
    "digits": "9" * 5000,
    "a large number": str(2**64),
    "long": "x" * 10_000,
}
if IS_WIDE:
    VALUES |= {
        "quotes": quote("\"'`\\"),
        "wildcards": "%25_*",
        "half a character": "%ed%a0%80",
        "a negative number": "-1",
        "emoji": quote("\U0001f600"),
        "nothing": "",
    }
PARAMETERS = {
    "jaiminho_celery/event": ("q", "stream", "status__exact", "strategy__exact", "o", "p"),
    "testapp/lanejob": ("q", "status__exact", "o", "p"),
    "testapp/freejob": ("q",),
    "parviraptor_celery/pause": ("q", "queue", "queue__exact"),
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, one_database: str) -> None:
    monkeypatch.setattr(broker, "kick", lambda *_, **__: True)


@pytest.fixture
def client(using: str) -> Client:
    visitor = Client(raise_request_exception=False)
    visitor.force_login(User.objects.create_superuser("root"))
    return visitor


@pytest.fixture
def rows(using: str) -> dict[str, int]:
    """A dead letter, and a failed job of each kind."""
    letter = Event.objects.create(
        name="n", version=1, strategy="keep-order", status="DEAD", body=PAYLOAD
    )
    jobs = [
        queue.enqueue(using=using, unique_key=f"k {PAYLOAD}", script=PAYLOAD)
        for queue in (LaneJob, FreeJob)
    ]
    for job in jobs:
        type(job).rows(using).update(status="FAILED")
    pause = jobs[0].pause_lane("x")
    return {"event": letter.pk, "lanejob": jobs[0].pk, "freejob": jobs[1].pk, "pause": pause}


def test_no_address_is_an_error_or_writes(using: str, client: Client, rows: dict[str, int]) -> None:
    before = contents(using)
    addresses = [
        f"/admin/{model}/?{name}={value}"
        for model, names in PARAMETERS.items()
        for name in names
        for value in VALUES.values()
    ]
    addresses += [
        f"/admin/{model}/{VALUES[what]}/{view}/"
        for model in PARAMETERS
        for view in (("change", "delete", "history") if IS_WIDE else ("change",))
        for what in ("nul", "no utf-8", "digits", "a large number")
    ]
    codes = {address: client.get(address, follow=True).status_code for address in addresses}
    wrong = {address[:80]: code for address, code in codes.items() if code >= 500}
    assert wrong == {}
    assert contents(using) == before


MOMENTS = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2999-01-01T00:00:00"]
MOMENTS += ["2999-01-01", "infinity", "nan", "x' OR 1=1", "9" * 5000, "\0"]


def test_no_moment_of_a_form_is_an_error(using: str, client: Client, rows: dict[str, int]) -> None:
    """What is none is asked about again."""
    for model, action in {"jaiminho_celery/event": "skip", "testapp/lanejob": "ignore"}.items():
        data = {"action": action, "_selected_action": [rows[model.split("/")[1]]]}
        for moment in MOMENTS:
            answer = client.post(f"/admin/{model}/", {**data, "shown_until": moment})
            assert answer.status_code == 200, moment
            assert 'name="shown_until"' in answer.content.decode(), moment
    assert Event.objects.get().status == "DEAD"


HIDDEN = ("body__startswith", "body__regex", "signature__gte", "lane__gt")


def test_no_list_answers_whether_a_hidden_text_begins_so(
    using: str, client: Client, rows: dict[str, int]
) -> None:
    """The same answer for what is there and for what is not."""
    for question in HIDDEN:
        answers = [
            client.get("/admin/jaiminho_celery/event/", {question: text})
            for text in (PAYLOAD, f"not {PAYLOAD}")
        ]
        assert {answer.status_code for answer in answers} == {400}, question


TEXTS = ["x' OR 1=1 --", "%", "_", "\\", "\0", "\U0001f600", "x" * 10_000, "{0}"]


def test_what_a_command_is_told_selects_nothing_but_what_equals_it(
    using: str, rows: dict[str, int]
) -> None:
    before = contents(using, "jaiminho_celery", "testapp")
    for text in TEXTS:
        letters = [["skip", f"--{name}", text] for name in ("stream", "key", "name")]
        letters += [["discard", "--no-input", "--fingerprint", text], ["replay", "--id", text]]
        letters += [["list", "--using", text]]
        options = [["dead_letters", *arguments] for arguments in letters]
        options += [["events_relay", "--stream", text], ["process_queue", "testapp", text]]
        options += [["clean_old_processed_jobs", "--queue", text]]
        for command, *arguments in options:
            out = StringIO()
            try:
                call_command(command, *arguments, stdout=out)
            except CommandError as error:
                out.write(str(error))
            assert PAYLOAD not in out.getvalue()
    assert contents(using, "jaiminho_celery", "testapp") == before


def test_no_id_that_is_none_is_looked_for(using: str, rows: dict[str, int]) -> None:
    for text in (str(2**63), str(2**64), "9" * 5000, "\N{ARABIC-INDIC DIGIT THREE}"):
        with pytest.raises(CommandError, match="neither an id nor a UUID"):
            call_command("dead_letters", "skip", "--id", text)
    for ids in ([2**63], [2**64, -(2**64)], [0, -1]):
        assert dead_letters.skip(using=using, ids=ids).total == 0
    assert Event.objects.get().status == "DEAD"
