"""The commands of the outbox, as a person types them."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from jaiminho_celery import dead_letters
from jaiminho_celery.models import Event
from tests.unit.events import let_be_due, statuses

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


class TestEventsRelay:
    @pytest.fixture(autouse=True)
    def keep_signals(self) -> Iterator[None]:
        kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        yield
        for number, handler in kept.items():
            signal.signal(number, handler)

    @pytest.fixture
    def waiting(self, outbox: Any) -> None:
        """Events of every stream, all due."""
        outbox.bare(1)
        outbox.mail(2)
        outbox.in_order(3)
        outbox.per_shop("a")
        outbox.per_shop("b")
        let_be_due()

    @pytest.mark.usefixtures("waiting")
    def test_delivers_every_stream_and_exits(self, outbox: Any) -> None:
        assert "5 events tried" in run("events_relay")
        assert statuses() == ["SENT"] * 5
        assert len(outbox.calls) == 5

    @pytest.mark.usefixtures("waiting")
    @pytest.mark.parametrize(
        ("stream", "names"),
        [("mails", {"mail"}), ("orders", {"in_order"}), ("stock", {"per_shop"})],
    )
    def test_delivers_one_stream(self, outbox: Any, stream: str, names: set[str]) -> None:
        run("events_relay", "--stream", stream)
        assert {name for name, _, _ in outbox.calls} == names

    def test_delivers_more_lanes_than_a_sweep_looks_at(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"SWEEP_LANES": 2}
        for number in range(7):
            outbox.per_shop(str(number))
        run("events_relay")
        assert statuses() == ["SENT"] * 7

    def test_takes_over_what_a_dead_hook_left(self, outbox: Any) -> None:
        outbox.bare(1)
        Event.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        run("events_relay")
        assert statuses() == ["SENT"]

    def test_is_not_stopped_by_failures(self, outbox: Any, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"BACKOFF_BASE_SECONDS": 600}
        outbox.errors["bare"] = ValueError("away")
        outbox.bare(1)
        outbox.mail(2)
        let_be_due()
        run("events_relay")
        assert statuses() == ["WAITING", "SENT"]

    def test_of_nothing_exits(self) -> None:
        assert "0 events tried" in run("events_relay")

    def test_names_an_unknown_stream_and_the_known_ones(self) -> None:
        with pytest.raises(CommandError) as caught:
            run("events_relay", "--stream", "mail")
        assert "There is no stream 'mail'" in str(caught.value)
        assert "'mails', 'orders', 'stock'" in str(caught.value)

    def test_knows_a_stream_whose_function_is_gone_but_whose_events_are_not(
        self, outbox: Any
    ) -> None:
        outbox.in_order(1)
        Event.objects.update(stream="former")
        run("events_relay", "--stream", "former")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_runs_in_a_loop_until_it_is_told_to_stop(
        self, outbox: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
    ) -> None:
        class Endless(list[Any]):
            """Each call sends another event, and the fourth stops the loop."""

            def append(self, call: Any) -> None:
                super().append(call)
                outbox.in_order(len(self))
                if len(self) == 4:
                    signal.raise_signal(number)

        monkeypatch.setattr(outbox, "calls", Endless())
        outbox.in_order(0)
        out = run("events_relay", "--run-in-loop", "--loop-interval", "0.001")
        assert "4 events tried" in out
        assert statuses() == ["SENT"] * 4 + ["WAITING"]

    @pytest.mark.parametrize("interval", ["0", "-1", "nan"])
    def test_refuses_an_interval_that_is_none(self, interval: str) -> None:
        with pytest.raises(CommandError, match="--loop-interval"):
            run("events_relay", "--loop-interval", interval)


class TestEventCleaner:
    def test_deletes_what_is_too_old_and_tells_how_many(self) -> None:
        for days in (13, 15, 16):
            sent_at = timezone.now() - timedelta(days=days)
            Event.objects.create(version=1, status="SENT", sent_at=sent_at)
        assert "2 events deleted" in run("event_cleaner")
        assert Event.objects.count() == 1


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


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True
