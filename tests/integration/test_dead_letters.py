"""Dead letters on every database: they hold their key, and come back once and in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from jaiminho_celery import barriers, dead_letters, registry, signals, sweep
from jaiminho_celery.constants import PublishStrategyType
from jaiminho_celery.dead_letters import Report, Verb
from jaiminho_celery.models import Event
from jaiminho_celery.send import save_to_outbox, save_to_outbox_stream
from parviraptor_celery.drains import Budget
from tests.integration.threads import at_once
from tests.unit.jobs import received

published: list[Any] = []
hopeless: set[Any] = set()


class Hopeless(Exception):
    """Listed as not worth a retry."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """Start with nothing published; these tests are the relay themselves."""
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)
    monkeypatch.setattr(barriers, "PATIENCE_SECONDS", 0.05)
    settings.JAIMINHO_CONFIG = {"NON_RETRYABLE_EXCEPTIONS": (Hopeless,)}
    known = dict(registry._functions)
    published.clear()
    hopeless.clear()
    yield
    registry._functions.clear()
    registry._functions.update(known)


def _publish(payload: Any) -> None:
    if payload in hopeless:
        raise Hopeless(f"{payload} is refused")
    published.append(payload)


@pytest.fixture
def ordered(using: str) -> Callable[[Any, str], None]:
    """A function whose events keep their order per key."""

    @save_to_outbox_stream(
        "ordered",
        PublishStrategyType.KEEP_ORDER,
        using=using,
        key=lambda _, key: key,
        name="tests.ordered",
    )
    def publish(payload: Any, key: str) -> None:
        _publish(payload)

    return publish


@pytest.fixture
def unordered(using: str) -> Callable[[Any], None]:
    """A function whose events are published right after the commit."""

    @save_to_outbox(using=using, name="tests.unordered")
    def publish(payload: Any) -> None:
        _publish(payload)

    return publish


def relay(using: str) -> int:
    return sweep.relay_here(using, Budget.endless())


def statuses(using: str) -> list[str]:
    return list(Event.rows(using).order_by("id").values_list("status", flat=True))


def bury_three(using: str, ordered: Callable[[Any, str], None]) -> None:
    """Let the heads of the keys a and b die; another event waits behind that of a."""
    hopeless.update({1, 2})
    ordered(1, "a")
    ordered(2, "b")
    ordered(3, "a")
    ordered(4, "c")
    relay(using)
    hopeless.clear()


def test_a_dead_head_holds_its_key_and_no_other(
    using: str, ordered: Callable[[Any, str], None]
) -> None:
    bury_three(using, ordered)
    assert published == [4]
    assert statuses(using) == ["DEAD", "DEAD", "WAITING", "SENT"]
    assert relay(using) == 0


def test_a_replay_brings_the_lane_back_in_its_old_order(
    using: str, ordered: Callable[[Any, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK_ROWS", 1)
    bury_three(using, ordered)
    assert dead_letters.replay(using=using, everything=True).total == 2
    published.clear()
    relay(using)
    assert published.index(1) < published.index(3)
    assert sorted(published) == [1, 2, 3]


def test_the_dead_of_one_lane_come_back_one_behind_the_other(
    using: str, ordered: Callable[[Any, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK_ROWS", 2)
    for number in range(7):
        ordered(number, "a")
    Event.rows(using).filter(status=Event.Status.WAITING).update(status=Event.Status.DEAD)
    assert dead_letters.replay(using=using, stream="ordered").total == 7
    relay(using)
    assert published == list(range(7))


@pytest.mark.parametrize(
    ("decide", "left"),
    [
        (dead_letters.skip, ["SKIPPED", "DEAD", "SENT", "SENT"]),
        (dead_letters.discard, ["DEAD", "SENT", "SENT"]),
    ],
)
def test_a_lane_goes_on_without_what_was_set_aside(
    using: str, ordered: Callable[[Any, str], None], decide: Callable[..., Report], left: list[str]
) -> None:
    bury_three(using, ordered)
    first = Event.rows(using).earliest("id")
    assert decide(using=using, ids=[first.pk]).total == 1
    relay(using)
    assert published == [4, 3]
    assert statuses(using) == left


@pytest.mark.parametrize("verb", list(Verb))
def test_two_people_who_decide_at_once_decide_about_each_event_once(
    using: str, unordered: Callable[[Any], None], verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK_ROWS", 5)
    hopeless.update(range(40))
    for number in range(40):
        unordered(number)
    assert statuses(using) == ["DEAD"] * 40
    together = threading.Barrier(2)

    def decide() -> Report:
        together.wait(20)
        return dead_letters.decide(verb, Event.rows(using))

    one, other = at_once(decide, decide)
    assert one.total + other.total == 40
    hopeless.clear()
    relay(using)
    assert published == (list(range(40)) if verb is Verb.REPLAY else [])


def test_somebody_who_is_late_leaves_alone_what_the_other_replayed(
    using: str, unordered: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have read the same dead letter; the second writes after the first has committed."""
    hopeless.add(1)
    unordered(1)
    late = Event.rows(using).get()
    assert Event.rows(using).get().replay()
    relay(using)
    assert Event.rows(using).get().status == "DEAD"  # replayed, tried, and dead once more
    assert not late.discard()
    assert not late.replay()
    assert statuses(using) == ["DEAD"]


def test_unordered_events_that_are_replayed_are_relayed_by_id(
    using: str, unordered: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK_ROWS", 7)
    hopeless.update(range(30))
    for number in range(30):
        unordered(number)
    hopeless.clear()
    dead_letters.replay(using=using, everything=True)
    due = set(Event.rows(using).values_list("run_after", flat=True))
    assert len(due) <= 5
    relay(using)
    assert published == list(range(30))


@pytest.mark.parametrize(
    "decide",
    [dead_letters.replay, dead_letters.skip, dead_letters.discard],
    ids=lambda f: f.__name__,
)
def test_a_dry_run_counts_the_same_and_writes_nothing(
    using: str, ordered: Callable[[Any, str], None], decide: Callable[..., Report]
) -> None:
    bury_three(using, ordered)
    before = list(Event.rows(using).order_by("id").values())
    with CaptureQueriesContext(connections[using]) as queries:
        dry = decide(using=using, everything=True, dry_run=True)
    assert {query["sql"].split()[0] for query in queries} == {"SELECT"}
    assert list(Event.rows(using).order_by("id").values()) == before
    done = decide(using=using, everything=True)
    assert dry == done
    (line,) = dry.lines
    assert (line.using, line.stream, line.name) == (using, "ordered", "tests.ordered")
    assert (line.reason, line.count, dry.total) == ("Hopeless: 1 is refused", 2, 2)


def test_a_selection_is_meant_to_the_letter(
    using: str, ordered: Callable[[Any, str], None]
) -> None:
    hopeless.update({1, 2, 3})
    for number, key in ((1, "aB"), (2, "ab"), (3, "AB")):
        ordered(number, key)
    relay(using)
    key = Event.rows(using).latest("id").key
    assert dead_letters.discard(using=using, key=key).total == 1
    assert dead_letters.skip(using=using, stream="Ordered").total == 0
    assert statuses(using) == ["DEAD", "DEAD"]


@pytest.mark.parametrize("column", ["stream", "key", "name"])
def test_a_selection_means_blanks_and_cases_too(using: str, column: str) -> None:
    """MariaDB takes texts for equal that differ in case, or in blanks at their end."""
    for text in ("orders", "orders ", "Orders"):
        texts: dict[str, str] = {"name": "n", column: text}
        dead = Event(version=1, strategy="x", body="{}", status="DEAD", run_after=None, **texts)
        dead.insert(using)
    selection: dict[str, Any] = {column: "orders"}
    assert dead_letters.discard(using=using, **selection).total == 1
    left = Event.rows(using).order_by("id").values_list(column, flat=True)
    assert list(left) == ["orders ", "Orders"]


def test_the_last_of_max_attempts_makes_a_dead_letter_and_says_so(
    using: str, ordered: Callable[[Any, str], None], unordered: Callable[[Any], None], settings: Any
) -> None:
    settings.JAIMINHO_CONFIG = {"MAX_ATTEMPTS": 1}
    hopeless.update({1, 2})
    with (
        received(signals.event_permanently_failed) as by_hook,
        received(signals.event_permanently_failed_by_events_relay) as by_relay,
    ):
        unordered(1)
        ordered(2, "a")
        relay(using)
    assert statuses(using) == ["DEAD", "DEAD"]
    assert [arguments["event_payload"] for arguments in by_hook] == [1]
    assert [arguments["event_payload"] for arguments in by_relay] == [2]
    reasons = {line.reason for line in dead_letters.summary(using=using).lines}
    assert all("MAX_ATTEMPTS" in reason for reason in reasons)
