"""The phases of a run: warming up, breaking things, coming to rest, judging."""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.core.management import call_command
from django.db import connection

from tests.faults.ledger import Ledger
from tests.soak import evidence
from tests.soak.fleet import Fleet
from tests.soak.injector import Injector
from tests.soak.options import Options
from tests.soak.project.models import KEYS, KINDS, Counter, Fact
from tests.soak.sabotage import Sabotage
from tests.soak.sampler import Sampler
from tests.soak.verdict import MESSAGE, Verdict
from tests.soak.watch import Watch
from tests.supervision import processes

POLL_SECONDS = 0.02
WARM_UP_SECONDS = 120.0
SILENCE_SECONDS = 10.0
"""After which nobody hands out a lost message any more: longer than the visibility timeout."""


@dataclass(frozen=True)
class Result:
    """What a run found out."""

    problems: list[str]
    by_kind: dict[str, dict[str, int]]
    faults: dict[str, int]
    numbers: dict[str, float]


def run(options: Options, fleet: Fleet, injector: Injector, ledger: Ledger, watch: Watch) -> Result:
    """Go through all phases, on servers that are up and a database that is empty."""
    _create_tables()
    sampler = Sampler()
    sampler.start()
    try:
        fleet.start_all()
        _warm_up(fleet, watch)
        _break_things(
            options, fleet, injector, watch, Sabotage(ledger) if options.sabotage else None
        )
        injector.stop()
        stopped = time.monotonic()
        came_to_rest = _drain(fleet, watch, options.drain)
        drained = time.monotonic() - stopped
    finally:
        sampler.stop()
    verdict = Verdict(
        ledger.entries(), evidence.gather(), options.lease, injector.broker.is_durable
    )
    problems = [*verdict.problems(), *sampler.crowded, *fleet.surprises]
    if not came_to_rest:
        problems.append(f"no rest within {options.drain:g} s")
    connection.close()
    numbers = {
        "seconds of faults": options.seconds,
        "seconds to come to rest": round(drained, 1),
        "samples of lanes": sampler.samples,
        **verdict.numbers(),
        "workers that Celery ended by itself": fleet.ended_by_celery,
    }
    return Result(problems, verdict.by_kind(), verdict.faults(), numbers)


def _create_tables() -> None:
    call_command("migrate", run_syncdb=True, verbosity=0)
    Counter.objects.bulk_create([Counter(name=f"shop{number}") for number in range(KEYS)])


def _warm_up(fleet: Fleet, watch: Watch) -> None:
    """Wait until a body of every kind has ended."""

    def everything_runs() -> bool:
        fleet.mend()
        watch.update()
        return {item.partition("-")[0] for item in watch.ended} == set(KINDS)

    processes.wait_until(everything_runs, WARM_UP_SECONDS, "every kind of body to end once")


def _break_things(
    options: Options, fleet: Fleet, injector: Injector, watch: Watch, sabotage: Sabotage | None
) -> None:
    began = time.monotonic()
    while time.monotonic() < began + options.seconds or (sabotage and not sabotage.is_done):
        fleet.mend()
        watch.update()
        injector.advance()
        if sabotage:
            sabotage.advance()
        time.sleep(POLL_SECONDS)


def _drain(fleet: Fleet, watch: Watch, seconds: float) -> bool:
    """Let the producers end, then wait until all rows rest and no message is on its way."""
    for producer in fleet.those("producer"):
        fleet.dismiss(producer)

    def rests() -> bool:
        fleet.mend()
        watch.update()
        if any(member.role == "producer" for member in fleet.leaving):
            return False
        return evidence.open_work() == 0 and _no_message_is_due(watch)

    try:
        processes.wait_until(rests, seconds, "everything to rest")
    except TimeoutError:
        return False
    return True


def _no_message_is_due(watch: Watch) -> bool:
    if time.monotonic() - watch.last_at > SILENCE_SECONDS:
        return True
    sent = set(Fact.objects.filter(kind=MESSAGE).values_list("item", flat=True))
    return sent <= watch.ended | watch.dropped
