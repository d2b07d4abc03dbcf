"""The command that lists dead letters and decides about them, as a person types it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from jaiminho_celery import dead_letters
from jaiminho_celery.models import Event
from tests.unit.events import statuses
from tests.unit.jaiminho.test_commands import Terminal, run

pytestmark = pytest.mark.django_db


class TestDeadLetters:
    @pytest.fixture(autouse=True)
    def dead(self) -> list[Event]:
        """Two that died alike, and one of another stream."""
        alike = {"stream": "orders", "name": "shop:ring", "fingerprint": "a" * 16}
        columns: list[dict[str, Any]] = [
            {**alike, "error_message": "ValueError: order 1\nis away", "key": "a"},
            {**alike, "error_message": "ValueError: order 2", "key": "b"},
            {"name": "shop:mail", "fingerprint": "b" * 16, "error_message": "KeyError: 1"},
        ]
        moment = timezone.now().replace(2026, 3, 4, 5, 6)
        return [
            Event.objects.create(version=1, status="DEAD", body="secret", created_at=moment, **own)
            for own in columns
        ]

    def test_are_listed_by_how_they_died(self) -> None:
        heading, first, second, total = run("dead_letters", "list").splitlines()
        assert heading.split() == ["count", "oldest", "fingerprint", "stream", "name", "reason"]
        assert first.split() == [
            *("2", "2026-03-04", "05:06", "a" * 16, "orders", "shop:ring"),
            *("ValueError:", "order", "1", "is", "away"),
        ]
        assert second.split()[:6] == ["1", "2026-03-04", "05:06", "b" * 16, "-", "shop:mail"]
        assert first.index("ValueError") == second.index("KeyError") == heading.index("reason")
        assert total == "3 dead letters."

    def test_are_listed_without_what_they_carry(self) -> None:
        assert "secret" not in run("dead_letters", "list")

    def test_are_listed_with_their_database_where_there_are_several(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = dead_letters.summary().lines
        lines[1].using = "other"
        monkeypatch.setattr(dead_letters, "summary", lambda **_: dead_letters.Report(lines))
        heading, first, second, _ = run("dead_letters", "list").splitlines()
        assert heading.split()[3] == "database"
        assert (first.split()[4], second.split()[4]) == ("default", "other")

    def test_are_cut_to_the_width_of_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "90")
        out = Terminal()
        Event.objects.update(error_message="x" * 1000)
        call_command("dead_letters", "list", stdout=out)
        assert max(map(len, out.getvalue().splitlines())) == 90
        assert max(map(len, run("dead_letters", "list").splitlines())) > 1000

    def test_can_not_give_orders_to_a_terminal(self) -> None:
        evil = "\x1b]0;owned\x07\x1b[2J\r\u202e"
        Event.objects.update(error_message=evil, stream=evil, name=evil)
        printed = run("dead_letters", "list")
        assert all(char.isprintable() for line in printed.split("\n") for char in line)
        assert r"\x1b]0;owned" in printed

    def test_that_there_are_none_is_said(self) -> None:
        assert run("dead_letters", "list", "--stream", "none") == "0 dead letters.\n"
        assert "0 dead letters replayed" in run("dead_letters", "replay", "--stream", "none")

    @pytest.mark.parametrize(
        ("filters", "outcome"),
        [
            (["--stream", "orders"], ["WAITING", "WAITING", "DEAD"]),
            (["--stream", ""], ["DEAD", "DEAD", "WAITING"]),
            (["--stream", "orders", "--key", "b"], ["DEAD", "WAITING", "DEAD"]),
            (["--name", "shop:mail"], ["DEAD", "DEAD", "WAITING"]),
            (["--fingerprint", "a" * 16], ["WAITING", "WAITING", "DEAD"]),
            (["--all"], ["WAITING", "WAITING", "WAITING"]),
            (["--all", "--using", "default"], ["WAITING", "WAITING", "WAITING"]),
        ],
    )
    def test_are_replayed_where_they_meet_every_filter(
        self, filters: list[str], outcome: list[str]
    ) -> None:
        printed = run("dead_letters", "replay", *filters)
        assert statuses() == outcome
        count = outcome.count("WAITING")
        assert printed.endswith(f"{count} dead letter{'s' * (count > 1)} replayed.\n")

    def test_are_skipped_by_their_ids_or_uuids(self, dead: list[Event]) -> None:
        one, two, three = dead
        run("dead_letters", "skip", "--using", "default", "--id", str(one.pk), "--id", str(two.pk))
        assert statuses() == ["SKIPPED", "SKIPPED", "DEAD"]
        run("dead_letters", "skip", "--id", str(three.uuid))
        assert statuses() == ["SKIPPED", "SKIPPED", "SKIPPED"]

    @pytest.mark.parametrize("action", ["replay", "skip", "discard"])
    def test_stay_as_they_are_in_a_dry_run(self, action: str) -> None:
        printed = run("dead_letters", action, "--all", "--dry-run")
        assert "3 dead letters would be " in printed
        assert "ValueError: order 1" in printed
        assert statuses() == ["DEAD"] * 3

    def test_that_died_while_the_question_stood_are_not_discarded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def answer(question: str) -> str:
            assert "3 dead letters" in question
            Event.objects.create(version=1, status="DEAD", name="late", body="{}")
            return "yes"

        monkeypatch.setattr("builtins.input", answer)
        assert "3 dead letters discarded" in run("dead_letters", "discard", "--all")
        assert Event.objects.get().name == "late"

    def test_are_discarded_by_whoever_types_yes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "yes")
        printed = run("dead_letters", "discard", "--stream", "orders")
        assert "Delete 2 dead letters for good?" in asked[0]
        assert "2 dead letters discarded" in printed
        assert statuses() == ["DEAD"]

    @pytest.mark.parametrize("answer", ["", "y", "no", "Yes"])
    def test_are_kept_for_any_other_answer(
        self, monkeypatch: pytest.MonkeyPatch, answer: str
    ) -> None:
        monkeypatch.setattr("builtins.input", lambda question: answer)
        with pytest.raises(CommandError, match="Nothing was discarded"):
            run("dead_letters", "discard", "--all")
        assert statuses() == ["DEAD"] * 3

    def test_are_kept_where_nobody_can_be_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def closed(question: str) -> str:
            raise EOFError

        monkeypatch.setattr("builtins.input", closed)
        with pytest.raises(CommandError, match="--no-input"):
            run("dead_letters", "discard", "--all")
        assert statuses() == ["DEAD"] * 3
        assert "3 dead letters discarded" in run("dead_letters", "discard", "--all", "--no-input")
        assert statuses() == []

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["replay"], "Say which dead letters to replay"),
            (["discard", "--using", "default"], "Say which dead letters to discard"),
            (["skip", "--all", "--stream", "orders"], "--all and a filter exclude"),
            (["skip", "--id", "seven"], "'seven' is neither an id nor a UUID"),
            (["skip", "--id", "7", "--id", str(uuid.uuid4())], "ids or UUIDs with --id, not both"),
            (["replay", "--all", "--using", "elsewhere"], "no database 'elsewhere'"),
            (["bury", "--all"], "invalid choice: 'bury'"),
        ],
    )
    def test_are_left_alone_when_it_is_not_clear_which_are_meant(
        self, arguments: list[str], says: str
    ) -> None:
        with pytest.raises(CommandError, match=says):
            run("dead_letters", *arguments)
        assert statuses() == ["DEAD"] * 3

    def test_that_could_not_be_read_are_an_error_that_names_the_database(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(**_: Any) -> Any:
            raise OperationalError("gone")

        report = dead_letters.Report(left_out=["other"])
        monkeypatch.setattr(dead_letters, "summary", lambda **_: report)
        with pytest.raises(CommandError, match="outbox in other could not be read"):
            run("dead_letters", "list")
        monkeypatch.setattr(dead_letters, "summary", away)
        with pytest.raises(CommandError, match=r"outbox in 'default' could not be read.*gone"):
            run("dead_letters", "list", "--using", "default")
