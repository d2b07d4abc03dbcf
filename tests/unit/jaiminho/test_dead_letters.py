"""Dead letters by the dozen: which are meant, what is done, and what is left alone."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jaiminho_celery import dead_letters, registry
from jaiminho_celery.dead_letters import Verb
from jaiminho_celery.exceptions import BadSelection, UnknownAlias
from jaiminho_celery.models import Event
from tests.unit.events import only, statuses

pytestmark = pytest.mark.django_db(transaction=True)

VERBS = {
    "replay": dead_letters.replay,
    "skip": dead_letters.skip,
    "discard": dead_letters.discard,
}
EVERY_VERB = pytest.mark.parametrize("verb", list(VERBS))
NUDGE = "jaiminho_celery.relay_events"
NOON = timezone.now().replace(hour=12, minute=0, second=0, microsecond=0)


def make(status: str = "DEAD", **columns: Any) -> Event:
    fitting: dict[str, Any] = {
        "PUBLISHING": {"lease_until": timezone.now()},
        "SENT": {"sent_at": timezone.now()},
    }.get(status, {})
    defaults = {"version": 1, "strategy": "keep-order", "name": "shop:ring", "error_count": 3}
    return Event.objects.create(**{**defaults, **fitting, **columns, "status": status})


@pytest.fixture
def six() -> list[Event]:
    """Six dead letters, each with something of its own."""
    columns: list[dict[str, Any]] = [
        {"stream": "orders", "key": "a"},
        {"stream": "orders", "key": "b"},
        {"name": "shop:mail"},
        {"fingerprint": "0123456789abcdef"},
        {"modified_at": NOON - timedelta(days=9)},
        {"modified_at": NOON - timedelta(days=10)},
    ]
    return [make(**own) for own in columns]


@pytest.fixture
def decided(six: list[Event]) -> Callable[[], list[int]]:
    """Which of the six, counted from 0, are no longer dead or no longer there."""

    def decided() -> list[int]:
        left = dict(Event.objects.values_list("pk", "status"))
        return [number for number, event in enumerate(six) if left.get(event.pk) != "DEAD"]

    return decided


@pytest.mark.usefixtures("six")
class TestASelection:
    @EVERY_VERB
    @pytest.mark.parametrize(
        ("selection", "meant"),
        [
            ({"stream": "orders"}, [0, 1]),
            ({"stream": "orders", "key": "b"}, [1]),
            ({"stream": "orders", "name": "shop:mail"}, []),
            ({"stream": ""}, [2, 3, 4, 5]),
            ({"key": "", "stream": "orders"}, []),
            ({"name": "shop:mail"}, [2]),
            ({"name": "shop"}, []),
            ({"fingerprint": "0123456789abcdef"}, [3]),
            ({"until": NOON - timedelta(days=9)}, [4, 5]),
            ({"since": NOON - timedelta(days=9), "until": NOON - timedelta(days=8)}, [4]),
            ({"ids": []}, []),
            ({"uuids": []}, []),
            ({"everything": True}, [0, 1, 2, 3, 4, 5]),
            ({"everything": True, "using": "default"}, [0, 1, 2, 3, 4, 5]),
            ({"stream": "orders", "key": None, "using": None, "everything": False}, [0, 1]),
        ],
    )
    def test_means_what_meets_every_condition(
        self, verb: str, selection: Any, meant: list[int], decided: Callable[[], list[int]]
    ) -> None:
        assert VERBS[verb](dry_run=True, **selection).total == len(meant)
        assert VERBS[verb](**selection).total == len(meant)
        assert decided() == meant

    def test_may_be_of_ids_or_uuids(
        self, six: list[Event], decided: Callable[[], list[int]]
    ) -> None:
        dead_letters.skip(using="default", ids=(event.pk for event in six[:2]))
        dead_letters.skip(uuids=[six[3].uuid, str(six[4].uuid), uuid.uuid4()])
        assert decided() == [0, 1, 3, 4]

    @EVERY_VERB
    @pytest.mark.parametrize("selection", [{}, {"using": "default"}, {"stream": None}])
    def test_that_is_empty_is_not_everything(
        self, verb: str, selection: Any, decided: Callable[[], list[int]]
    ) -> None:
        with pytest.raises(BadSelection, match="everything=True for all of them"):
            VERBS[verb](**selection)
        assert decided() == []

    @pytest.mark.parametrize(
        ("selection", "says"),
        [
            ({"everything": True, "stream": "orders"}, "stream exclude each other"),
            ({"ids": "12"}, "ids must be a list, not the text '12'"),
            ({"uuids": ["12"]}, "'12' is not a UUID"),
        ],
    )
    def test_that_is_unclear_is_refused(
        self, selection: Any, says: str, decided: Callable[[], list[int]]
    ) -> None:
        with pytest.raises(BadSelection, match=says):
            dead_letters.discard(**selection)
        assert decided() == []

    def test_with_a_slip_of_the_pen_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"no condition steam. Known: using, stream,"):
            dead_letters.discard(steam="orders")  # type: ignore[call-arg]

    def test_of_a_database_that_there_is_not_names_those_there_are(self) -> None:
        with pytest.raises(
            UnknownAlias, match=r"no database 'elsewhere'. DATABASES has: 'default'"
        ):
            dead_letters.replay(using="elsewhere", everything=True)

    def test_of_ids_needs_the_database_where_there_are_several(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "known_aliases", lambda: ["default", "other"])
        with pytest.raises(BadSelection, match="'default', 'other'"):
            dead_letters.discard(ids=[1])


@EVERY_VERB
class TestEveryVerb:
    def test_leaves_what_is_not_dead_as_it_is(self, verb: str) -> None:
        for status in ("WAITING", "PUBLISHING", "SENT", "SKIPPED"):
            make(status)
        before = list(Event.objects.order_by("id").values())
        assert VERBS[verb](everything=True).total == 0
        assert list(Event.objects.order_by("id").values()) == before

    @pytest.mark.parametrize("rows", [1, 4, 5, 6])
    def test_works_through_chunks_in_the_order_of_ids(
        self, verb: str, rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dead_letters, "CHUNK_ROWS", 2)
        ids = [make().pk for _ in range(rows)]
        seen: list[int] = []
        apply = Verb.apply

        def noting(self: Verb, event: Event, due: datetime) -> bool:
            seen.append(event.pk)
            return apply(self, event, due)

        monkeypatch.setattr(Verb, "apply", noting)
        with CaptureQueriesContext(connection) as queries:
            assert VERBS[verb](everything=True).total == rows
        assert seen == ids
        begun = [query for query in queries if query["sql"].startswith("BEGIN")]
        assert len(begun) == rows // 2 + 1 + rows % 2

    def test_in_a_dry_run_writes_nothing_and_says_the_same(self, verb: str) -> None:
        for stream in ("a", "b", "b"):
            make(stream=stream, fingerprint="f" * 16, error_message="ValueError: away")
        with CaptureQueriesContext(connection) as queries:
            dry = VERBS[verb](everything=True, dry_run=True)
        assert {query["sql"].split()[0] for query in queries} == {"SELECT"}
        assert statuses() == ["DEAD"] * 3
        done = VERBS[verb](everything=True)
        assert sorted(dry.lines, key=repr) == sorted(done.lines, key=repr)

    def test_leaves_alone_what_somebody_else_decided_meanwhile(
        self, verb: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = [make(), make(), make()]
        apply = Verb.apply

        def after_somebody_else(self: Verb, event: Event, due: datetime) -> bool:
            if event.pk == events[1].pk:
                # Replayed by another person, and dead once more: this is not what was read.
                Event.objects.filter(pk=event.pk).update(attempt=event.attempt + 1)
            return apply(self, event, due)

        monkeypatch.setattr(Verb, "apply", after_somebody_else)
        report = VERBS[verb](everything=True)
        assert (report.total, report.left_alone) == (2, 1)
        assert Event.objects.get(pk=events[1].pk).status == "DEAD"

    def test_that_is_cut_short_leaves_whole_chunks_decided(
        self, verb: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dead_letters, "CHUNK_ROWS", 2)
        ids = [make().pk for _ in range(5)]
        apply = Verb.apply

        def power_cut(self: Verb, event: Event, due: datetime) -> bool:
            if event.pk == ids[3]:
                raise RuntimeError("power cut")
            return apply(self, event, due)

        monkeypatch.setattr(Verb, "apply", power_cut)
        with pytest.raises(RuntimeError):
            VERBS[verb](everything=True)
        assert list(Event.objects.dead().values_list("pk", flat=True)) == ids[2:]

    def test_is_undone_with_the_transaction_of_the_caller(
        self, verb: str, kicked: Callable[[], Any]
    ) -> None:
        make(lane="a")
        make()
        with transaction.atomic():
            assert VERBS[verb](everything=True).total == 2
            transaction.set_rollback(True)
        assert statuses() == ["DEAD", "DEAD"]
        assert kicked() == []

    def test_is_logged_without_what_the_events_carry(
        self, verb: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        make(body="secret", error_message="secret", stream="orders")
        with caplog.at_level(logging.DEBUG, "jaiminho_celery"):
            VERBS[verb](stream="orders")
        assert f"dead letters of default {Verb[verb.upper()].value}: 1" in caplog.text
        assert "secret" not in caplog.text


class TestAReport:
    def test_puts_together_what_died_alike_whatever_the_message(self) -> None:
        for order, days in ((1, 2), (2, 3), (3, 1)):
            make(
                stream="orders",
                fingerprint="a" * 16,
                error_message=f"order {order}",
                created_at=NOON - timedelta(days=days),
                modified_at=NOON + timedelta(days=days),
            )
        make(stream="orders", fingerprint="b" * 16, error_message="other")
        make(stream="mails", fingerprint="a" * 16, error_message="order 1")
        for report in (dead_letters.summary(), dead_letters.skip(everything=True)):
            lines = {(line.stream, line.fingerprint[0]): line for line in report.lines}
            assert {alike: line.count for alike, line in lines.items()} == {
                ("orders", "a"): 3,
                ("orders", "b"): 1,
                ("mails", "a"): 1,
            }
            line = lines["orders", "a"]
            assert (line.using, line.name, line.reason) == ("default", "shop:ring", "order 1")
            assert line.oldest == NOON - timedelta(days=3)
            assert line.latest == NOON + timedelta(days=3)
            assert report.total == 5

    def test_without_a_condition_shows_everything_the_most_frequent_first(self) -> None:
        for stream in ("rare", "often", "often"):
            make(stream=stream)
        assert [line.stream for line in dead_letters.summary().lines] == ["often", "rare"]
        assert dead_letters.summary(stream="rare").total == 1

    def test_names_the_databases_that_could_not_be_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "for_each_alias", lambda body: body("default") or ["other"])
        make()
        report = dead_letters.replay(everything=True)
        assert (report.total, report.left_out) == (1, ["other"])


class TestAReplay:
    def test_makes_the_event_as_if_it_were_new_in_its_old_place(self) -> None:
        make(error_message="ValueError: away", fingerprint="a" * 16, lane="x", attempt=7)
        before = only()
        dead_letters.replay(everything=True)
        event = only()
        assert (event.status, event.error_count) == ("WAITING", 0)
        assert (event.error_message, event.fingerprint) == ("", "")
        assert (event.pk, event.lane, event.attempt) == (before.pk, "x", 7)
        assert abs(event.run_after - timezone.now()) < timedelta(seconds=10)

    def test_gives_the_events_of_a_chunk_one_due_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dead_letters, "CHUNK_ROWS", 20)
        for _ in range(40):
            make()
        dead_letters.replay(everything=True)
        due = list(Event.objects.order_by("id").values_list("run_after", flat=True))
        assert len(set(due[:20])) == len(set(due[20:])) == 1
        assert due == sorted(due)


class TestTheRelay:
    """hears of it: of each lane, and once of what has none."""

    @EVERY_VERB
    def test_is_nudged_once_for_each_lane(self, verb: str, kicked: Callable[[], Any]) -> None:
        for lane in ("a", "b", "a", "c"):
            make(lane=lane)
        VERBS[verb](everything=True)
        nudges = kicked()
        assert {task for task, _ in nudges} == {NUDGE}
        assert sorted(lane for _, about in nudges for lane in about["lanes"]) == ["a", "b", "c"]

    def test_is_asked_once_to_look_after_a_replay_of_what_has_no_lane(
        self, kicked: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dead_letters, "CHUNK_ROWS", 2)
        for _ in range(5):
            make()
        dead_letters.replay(everything=True)
        assert kicked() == [(NUDGE, {"using": "default"})]

    @pytest.mark.parametrize("verb", ["skip", "discard"])
    def test_is_left_alone_where_nothing_waits_behind(
        self, verb: str, kicked: Callable[[], Any]
    ) -> None:
        make()
        VERBS[verb](everything=True)
        assert kicked() == []

    @EVERY_VERB
    def test_hears_nothing_of_a_dry_run(self, verb: str, kicked: Callable[[], Any]) -> None:
        make(lane="a")
        make()
        VERBS[verb](everything=True, dry_run=True)
        assert kicked() == []

    @EVERY_VERB
    def test_is_nudged_by_a_decision_about_one_event(
        self, verb: str, kicked: Callable[[], Any]
    ) -> None:
        with transaction.atomic():
            assert getattr(make(lane="a"), verb)()
            assert kicked() == []
        assert kicked() == [(NUDGE, {"using": "default", "lanes": ["a"]})]

    def test_is_asked_to_look_after_a_replay_of_one_event_without_a_lane(
        self, kicked: Callable[[], Any]
    ) -> None:
        assert make().replay()
        assert kicked() == [(NUDGE, {"using": "default"})]
        assert make().discard()
        assert kicked() == []
