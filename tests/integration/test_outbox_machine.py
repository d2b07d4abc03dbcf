"""Random lives of the outbox, step by step beside a model of what it promises."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import connections

from jaiminho_celery import registry
from tests.faults.figures import Note
from tests.faults.machines import HOUR, Tally, run_machine
from tests.faults.outbox_machine import OutboxMachine
from tests.faults.outbox_model import Habits
from tests.faults.outbox_steps import CONFIG

EXAMPLES = {"sqlite": 12, "postgresql": 3, "mysql": 3}
STEPS = 15

SETTINGS: dict[str, tuple[dict[str, Any], Habits]] = {
    "by default": ({}, Habits()),
    "keeping all": (
        {"PERSIST_ALL_EVENTS": True, "MAX_ATTEMPTS": 3},
        Habits(keeps_hooked=True, most_attempts=3),
    ),
    "keeping none": ({"DELETE_AFTER_SEND": True}, Habits(keeps_relayed=False)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_outbox_does_what_its_model_does(
    one_database: str,
    name: str,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    figures: Note,
) -> None:
    config, habits = SETTINGS[name]
    settings.JAIMINHO_CONFIG = CONFIG | config | {"DATABASES": [one_database]}
    for module in ("backoff", "execution"):
        monkeypatch.setattr(f"jaiminho_celery.{module}.full_jitter", lambda *_, **__: HOUR)
    monkeypatch.setattr(registry, "_functions", dict(registry._functions))
    for logger_name in ("jaiminho_celery", "parviraptor_celery"):
        monkeypatch.setattr(logging.getLogger(logger_name), "level", logging.CRITICAL)

    class Machine(OutboxMachine):
        pass

    Machine.using, Machine.habits, Machine.tally = one_database, habits, Tally()
    run_machine(
        f"{name}, {one_database}",
        Machine,
        EXAMPLES[connections[one_database].vendor],
        STEPS,
        figures,
    )
