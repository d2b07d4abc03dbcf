"""The commands of the outbox, as a person types them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from jaiminho_celery import registry
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

    def test_tells_a_person_that_it_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(body: Any) -> list[str]:
            signal.raise_signal(signal.SIGTERM)
            return []

        monkeypatch.setattr(registry, "for_each_alias", stop)
        terminal = Terminal()
        call_command("events_relay", "--run-in-loop", stdout=terminal)
        told = terminal.getvalue()
        assert told == "relaying every 1 s until SIGTERM or SIGINT\n0 events tried\n"

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

    def test_deletes_skipped_events_when_asked_to(self) -> None:
        self.make_old()
        assert "1 event deleted" in run("event_cleaner", "--state", "skipped")
        assert statuses() == ["SENT", "DEAD"]

    def test_deletes_both_when_asked_to(self) -> None:
        self.make_old()
        assert "2 events deleted" in run("event_cleaner", "--state=SENT", "--state=SKIPPED")
        assert statuses() == ["DEAD"]

    @pytest.mark.parametrize("state", ["DEAD", "WAITING", "PUBLISHING", "OLD"])
    def test_refuses_to_delete_what_waits_or_is_dead(self, state: str) -> None:
        with pytest.raises(CommandError, match="choose from"):
            run("event_cleaner", "--state", state)

    def test_only_counts_when_asked_to(self) -> None:
        self.make_old()
        out = run("event_cleaner", "--dry-run", "--state=SENT", "--state=SKIPPED")
        assert out.splitlines() == [
            "default: would delete 1 SENT event",
            "default: would delete 1 SKIPPED event",
        ]
        assert Event.objects.count() == 3

    def test_says_only_the_result_in_a_pipe(self) -> None:
        self.make_old()
        assert run("event_cleaner") == "1 event deleted\n"

    def test_shows_a_person_how_far_it_is(self, settings: Any) -> None:
        settings.JAIMINHO_CONFIG = {"CLEAN_CHUNK_ROWS": 1}
        self.make_old()
        self.make_old()
        terminal = Terminal()
        call_command("event_cleaner", stdout=terminal)
        shown = terminal.getvalue()
        assert "\rdefault: SENT: 1 rows deleted, " in shown
        assert "\rdefault: SENT: 2 rows deleted, " in shown
        assert shown.endswith(" rows/s\n2 events deleted\n")

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_ends_after_the_chunk_when_it_is_told_to_stop(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
    ) -> None:
        settings.JAIMINHO_CONFIG = {"CLEAN_CHUNK_ROWS": 2}
        for _ in range(5):
            self.make_old()
        monkeypatch.setattr(
            "jaiminho_celery.management.commands.event_cleaner.Progress.__call__",
            lambda progress, rows: signal.raise_signal(number),
        )
        before, out = signal.getsignal(number), StringIO()
        with pytest.raises(CommandError, match=f"Stopped by {number.name}") as caught:
            call_command("event_cleaner", "--state=SENT", "--state=SKIPPED", stdout=out)
        assert caught.value.returncode == code
        assert out.getvalue() == "2 events deleted\n"
        assert signal.getsignal(number) == before

    def test_fails_when_a_database_could_not_be_cleaned(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> int:
            raise OperationalError("away")

        monkeypatch.setattr("jaiminho_celery.cleanup.clean", fail)
        with pytest.raises(CommandError, match="The outbox in default") as caught:
            run("event_cleaner")
        assert caught.value.returncode == 1

    def make_old(self) -> None:
        """A row of each state that a person could want to be rid of."""
        old = timezone.now() - timedelta(days=15)
        Event.objects.create(version=1, status="SENT", sent_at=old)
        Event.objects.create(version=1, status="SKIPPED", modified_at=old)
        Event.objects.create(version=1, status="DEAD", modified_at=old)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True
