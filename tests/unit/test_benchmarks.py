"""The arithmetic of the benchmarks: rates, losses, ratios to peers, and the table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cpu, draining, options, peers, table
from benchmarks.drivers import ledger
from benchmarks.drivers.statistics import percentiles
from benchmarks.goals import OUTBOX_GOALS, TWO, Goal, ratio
from benchmarks.queue_goals import QUEUE_GOALS
from benchmarks.relay import tally
from benchmarks.results import Measurement, ResultFile, median, read
from benchmarks.venvs import REQUIREMENTS
from benchmarks.watching import Watch
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
WORK = "outbox-relay-redis"
RATE = Goal("nearest", WORK, "durable_rate", frozenset({"a", "b"}), 5)
COST = Goal("nearest", WORK, "added_p50", frozenset({"a", "b"}), 0.5, at_least=False, ours="x")


def measured(peer: str, repetition: int, label: str = "x", **result: Any) -> Measurement:
    return Measurement(WORK, peer, label, repetition, 20.0, result)


def test_a_rate_counts_from_the_first_arrival_that_was_seen() -> None:
    seen = Watch(1000, samples=[(10.0, 200), (11.0, 500), (12.0, 1000)], settled_at=14.0)
    assert seen.rate == 400
    assert seen.durable_rate == 200
    assert seen.rate_between(500, 1000) == 500


def test_a_single_sample_gives_no_rate_instead_of_an_infinite_one() -> None:
    assert Watch(5, samples=[(10.0, 5)]).rate is None
    assert Watch(5, samples=[(10.0, 5)]).rate_between(0, 5) is None


def test_losses_and_duplicates_do_not_make_up_for_each_other() -> None:
    assert tally(["a", "b", "b"], wanted=3) == {"arrived": 2, "lost": 1, "duplicates": 1}
    assert tally(["a", "b", "c"], wanted=3) == {"arrived": 3, "lost": 0, "duplicates": 0}


def test_the_ratio_compares_within_repetitions_before_it_takes_the_median() -> None:
    """The ratios are 10, 20 and 4; that of the medians would be 20."""
    rows = [measured(peers.OURS, at, durable_rate=rate) for at, rate in enumerate((1000, 500, 100))]
    rows += [measured("a", at, durable_rate=rate) for at, rate in enumerate((100, 25, 25))]
    assert ratio(RATE, rows) == (10, ("a", "x"))


def test_the_nearest_peer_is_the_fastest_or_the_cheapest() -> None:
    rows = [
        measured(peers.OURS, 0, durable_rate=1000, added_p50=1.0),
        measured("a", 0, durable_rate=100, added_p50=4.0),
        measured("b", 0, durable_rate=250, added_p50=2.0),
    ]
    assert ratio(RATE, rows) == (4, ("b", "x"))
    assert ratio(COST, rows) == (0.5, ("b", "x"))
    assert not RATE.is_reached(4)
    assert COST.is_reached(0.5)
    assert not COST.is_reached(0.51)


def test_a_yardstick_that_settles_nothing_is_compared_by_its_plain_rate() -> None:
    rows = [measured(peers.OURS, 0, durable_rate=1000), measured("a", 0, rate=500)]
    assert ratio(RATE, rows) == (2, ("a", "x"))


def test_only_the_chosen_case_of_ours_counts() -> None:
    rows = [
        measured(peers.OURS, 0, "x", added_p50=1.0),
        measured(peers.OURS, 0, "y", added_p50=9.0),
        measured("a", 0, added_p50=2.0),
    ]
    assert ratio(COST, rows) == (0.5, ("a", "x"))


def test_a_goal_of_the_queues_is_about_our_queues() -> None:
    goal = Goal("nearest", WORK, "rate", frozenset({"a"}), 2, our_name=peers.OUR_QUEUES)
    rows = [
        measured(peers.OUR_QUEUES, 0, rate=300.0),
        measured(peers.OURS, 0, rate=900.0),
        measured("a", 0, rate=100.0),
    ]
    assert ratio(goal, rows) == (3.0, ("a", "x"))


def test_a_goal_may_name_the_other_case_even_one_of_our_own() -> None:
    goal = Goal(
        "few",
        WORK,
        "rate",
        frozenset({peers.OURS}),
        0.9,
        ours="many wait",
        theirs="few wait",
    )
    rows = [
        measured(peers.OURS, 0, "many wait", rate=80.0),
        measured(peers.OURS, 0, "few wait", rate=100.0),
        measured(peers.OURS, 0, "none wait", rate=400.0),
    ]
    assert ratio(goal, rows) == (0.8, (peers.OURS, "few wait"))
    assert not goal.is_reached(0.8)


@pytest.mark.parametrize("missing", [peers.OURS, "a"])
def test_without_one_side_there_is_no_ratio(missing: str) -> None:
    rows = [measured(peer, 0, durable_rate=1.0) for peer in (peers.OURS, "a") if peer != missing]
    assert ratio(RATE, rows) is None


def test_the_percentiles_are_those_of_what_was_timed() -> None:
    assert dict(percentiles([float(n) for n in range(101)])) == {"p50": 50, "p95": 95}


def test_two_processes_are_compared_with_two() -> None:
    two = Goal("nearest", WORK, "durable_rate", frozenset({"a"}), 5, ours=f"relay, {TWO}")
    rows = [
        measured(peers.OURS, 0, f"relay, {TWO}", durable_rate=30.0),
        measured("a", 0, "one", durable_rate=10.0),
        measured("a", 0, f"other, {TWO}", durable_rate=15.0),
    ]
    assert ratio(two, rows) == (2.0, ("a", f"other, {TWO}"))


def test_a_median_of_nothing_is_nothing() -> None:
    assert median([None]) is None
    assert median([3.0, None, 1.0, 2.0]) == 2.0


def test_the_table_tells_medians_losses_errors_and_goals() -> None:
    good = {"messages": 10, "mib": 60.0, "left": 0, "capped": False, "duplicates": 0}
    rows = [
        *(
            measured(peers.OURS, at, "events_relay", rate=rate, durable_rate=rate, lost=0, **good)
            for at, rate in enumerate((900.0, 1000.0, 1200.0))
        ),
        *(measured("kombu", at, rate=400.0, lost=2, **good) for at in range(3)),
        Measurement(WORK, "django-jaiminho", "x", 0, 20.0, error="Broken: no\nluck"),
    ]
    text = table.render({"commit": "abc"}, rows)
    assert "- commit: abc" in text
    assert (
        "| 1,000 (900 to 1,200) | 1,000 (900 to 1,200) | 60 | 3 | nothing lost or twice |" in text
    )
    assert "| 400 (400 to 400) | - | 60 | 3 | lost: 2, 2, 2 |" in text
    assert "| django-jaiminho | x | - | - | - | - | 0 | Broken: no luck |" in text
    assert "| kombu, x | 2.50 | ≥ 2 | yes |" in text
    assert "outbox-send" not in text


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_every_peer_has_its_driver_and_its_pins(peer: peers.Peer) -> None:
    driver = ROOT.joinpath(*peer.driver.split("."))
    assert driver.with_suffix(".py").is_file() or (driver / "__main__.py").is_file()
    assert peer.requirements is None or (REQUIREMENTS / f"{peer.requirements}.txt").is_file()
    assert set(peer.sends_to_broker) <= set(peer.sends)


@pytest.mark.parametrize(
    "goal", [*OUTBOX_GOALS, *QUEUE_GOALS], ids=lambda goal: f"{goal.workload}, {goal.against}"
)
def test_every_goal_is_about_a_workload_and_peers_that_exist(goal: Goal) -> None:
    assert goal.workload in WORKLOADS
    assert {goal.our_name, *goal.others} <= {peer.name for peer in peers.PEERS}


def test_every_goal_of_the_drains_names_a_worker_that_is_measured() -> None:
    workers = peers.named(peers.OUR_QUEUES).workers
    drains = ("queue-independent", "queue-lanes", "queue-one-lane")
    for goal in QUEUE_GOALS:
        for name in [name for name in drains if goal.workload.startswith(name)]:
            assert goal.ours in [worker.label for worker in workers[name]]


def test_every_worker_belongs_to_a_workload() -> None:
    for peer in peers.PEERS:
        for name in peer.workers:
            assert any(workload.startswith(name) for workload in WORKLOADS), (peer.name, name)


def test_a_body_notes_its_start_and_the_notes_come_back_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger"
    monkeypatch.setenv(ledger.LEDGER_VARIABLE, str(path))
    ledger._descriptor.cache_clear()
    assert ledger.count(path) == 0
    ledger.note(7, lane=3)
    ledger.note(8)
    os.close(ledger._descriptor())
    ledger._descriptor.cache_clear()
    assert ledger.count(path) == 2
    first, second = ledger.read(path)
    assert (first.number, first.lane, second.number, second.lane) == (7, 3, 8, 0)
    assert first.at <= second.at


def starts(*bodies: tuple[int, int]) -> list[ledger.Start]:
    """Return starts of (number, lane), a tenth of a second apart."""
    return [ledger.Start(number, lane, at * 10**8) for at, (number, lane) in enumerate(bodies)]


def test_the_rate_of_a_drain_is_that_between_its_first_and_its_last_start() -> None:
    assert draining.rate(starts((0, 0), (1, 0), (2, 0))) == pytest.approx(10)
    assert draining.rate(starts((0, 0))) is None
    assert draining.rate([]) is None


def test_a_body_that_starts_after_a_later_one_of_its_lane_is_counted() -> None:
    assert draining.disorder(starts((0, 0), (3, 1), (1, 0), (2, 0))) == 0
    assert draining.disorder(starts((1, 0), (0, 0), (2, 1), (3, 0))) == 1
    assert draining.disorder(starts((2, 0), (0, 0), (1, 0))) == 2


def test_a_job_that_ran_twice_does_not_make_up_for_one_that_never_ran() -> None:
    seen = starts((0, 0), (1, 0), (1, 0))
    assert draining.tally(seen, wanted=3) == {"ran": 2, "lost": 1, "duplicates": 1}


class Ended:
    """A worker process that has ended."""

    pid = -1

    def poll(self) -> int:
        return 1

    def failure(self, problem: str) -> str:
        return f"the worker {problem}"


def test_workers_that_have_ended_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(ledger.RECORD.pack(0, 0, 0))
    ended: Any = Ended()
    with pytest.raises(draining.WorkersStalled, match="ran 1 of 2 jobs"):
        draining.await_starts([ended], path, wanted=2, cap_seconds=60)


def test_what_all_workers_did_before_they_ended_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(ledger.RECORD.pack(0, 0, 0))
    ended: Any = Ended()
    assert draining.await_starts([ended], path, wanted=1, cap_seconds=60).is_complete


def test_workers_that_are_too_slow_are_given_up_at_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(ledger.RECORD.pack(0, 0, 0))
    ended: Any = Ended()
    assert not draining.await_starts([ended], path, wanted=2, cap_seconds=0).is_complete


def test_processor_time_is_that_of_a_whole_session() -> None:
    assert cpu.seconds([os.getsid(0)]) > 0
    assert cpu.seconds([]) == 0


def test_the_table_tells_what_ran_out_of_order() -> None:
    good = {"jobs": 10, "rate": 5.0, "durable_rate": 4.0, "lost": 0, "duplicates": 0}
    rows = [Measurement("queue-lanes", "procrastinate", "x", 0, 20.0, {**good, "disorder": 3})]
    text = table.render({}, rows)
    assert "| procrastinate | x | 10 | 5 | 4 | - | 1 | disorder: 3 |" in text


def test_the_usual_workloads_of_an_app_can_be_chosen_together() -> None:
    chosen = options.parse(["--work", "queue,outbox-clean"]).work
    assert "queue-lanes" in chosen
    assert chosen[-1] == "outbox-clean"
    assert not {"queue-backlog", "outbox-send"} & set(chosen)


def test_a_workload_or_peer_that_nobody_knows_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for wrong in (["--work", "queues"], ["--peers", "nobody"]):
        with pytest.raises(SystemExit):
            options.parse(wrong)
        assert f"{wrong[0]}: no {wrong[1]}. Known: " in capsys.readouterr().err


def test_every_workload_has_its_columns() -> None:
    assert set(table.COLUMNS) == set(WORKLOADS)


def test_results_come_back_from_their_file(tmp_path: Any) -> None:
    path = tmp_path / "results" / "run.jsonl"
    rows = [measured("a", at, rate=float(at)) for at in range(2)]
    file = ResultFile(path, {"commit": "abc"})
    for row in rows:
        file.add(row)
    assert read([path]) == ({"commit": "abc"}, rows)
