"""Random lives of a queue, step by step beside a model of what it promises."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from django.db import connections

from parviraptor_celery import registry, settlement
from parviraptor_celery.models import BackoffStrategy, FailurePolicy
from parviraptor_celery.pace import Pace
from tests.faults.figures import Note
from tests.faults.machines import HOUR, Tally, run_machine
from tests.faults.queue_machine import QueueMachine
from tests.faults.queue_model import MOST_ERRORS, NEW, Kind
from tests.faults.queue_steps import CONFIG, KEEP_HOURS, LONG_WAIT_HOURS
from tests.testapp import models

EXAMPLES = {"sqlite": 8, "postgresql": 2, "mysql": 2}
STEPS = 15
SHOPS = ({"shop": "a"}, {"shop": "b"})

KINDS: dict[str, tuple[Any, Kind, Any]] = {
    "fifo": (models.FifoJob, Kind(), ({},)),
    "grouped": (models.LaneJob, Kind(), ({"shop": "a", "number": 1}, {"shop": "b", "number": 1})),
    "independent": (models.FreeJob, Kind(has_lanes=False), ({},)),
    "atomic": (models.AtomicJob, Kind(is_atomic=True), SHOPS),
    "holding": (models.HoldJob, Kind(policy=FailurePolicy.HOLD_LANE), SHOPS),
    "going on": (models.GoOnJob, Kind(policy=FailurePolicy.GO_ON), SHOPS),
    "squashing": (models.SquashJob, Kind(squashes=True), SHOPS),
}
ATTRIBUTES = {
    "TEMPORARY_FAILURE_THRESHOLD": MOST_ERRORS,
    "DEFERRED_RETRY_THRESHOLD": MOST_ERRORS,
    "BACKOFF_STRATEGY": BackoffStrategy.CONSTANT,
    "BACKOFF_STEP_MINUTES": 60,
    "MAX_AGE_FOR_PROCESSED_JOBS_IN_DAYS": KEEP_HOURS / 24,
    "MAX_TIMEFRAME_FOR_JOB_PROCESSING_IN_MIN": 30,
    "MAX_TIMEFRAME_FOR_UNPROCESSED_JOBS_IN_MIN": LONG_WAIT_HOURS * 60,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_queue_does_what_its_model_does(
    one_database: str,
    name: str,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    figures: Note,
) -> None:
    queue, kind, lanes = KINDS[name]
    settings.PARVIRAPTOR_CONFIG = CONFIG | {"DATABASES": [one_database]}
    for attribute, value in ATTRIBUTES.items():
        monkeypatch.setattr(queue, attribute, value)
    monkeypatch.setattr(settlement, "PAUSE_OF_UNPROCESSABLE", HOUR)
    monkeypatch.setattr(registry, "all_queues", lambda: [queue])
    monkeypatch.setattr(Pace, "next_batch", lambda _: 10)
    monkeypatch.setattr(logging.getLogger("parviraptor_celery"), "level", logging.CRITICAL)

    vendor = connections[one_database].vendor
    if vendor == "postgresql":
        kind = replace(kind, hands_on=(NEW,))

    class Machine(QueueMachine):
        pass

    Machine.queue, Machine.using, Machine.kind = queue, one_database, kind
    Machine.lanes_by, Machine.tally = lanes, Tally()
    run_machine(f"{name}, {one_database}", Machine, EXAMPLES[vendor], STEPS, figures)
