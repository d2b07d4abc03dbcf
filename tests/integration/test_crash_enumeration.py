"""A worker of jobs dies at each of its steps, or never hears that its COMMIT went through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as File
from typing import Any

import pytest

from tests.faults.crashes import cases_of, enumerate_crashes
from tests.faults.figures import Note
from tests.faults.queue_paths import PATHS, QueuePath, QueueWorld
from tests.testapp.models import Scripted


@pytest.fixture
def world(
    one_database: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any], QueueWorld]:
    """Make the world of a queue: its bodies tell the ledger, and its kicks wait in a list."""

    def make(queue: Any) -> QueueWorld:
        made = QueueWorld(one_database, tmp_path, queue)
        monkeypatch.setattr("parviraptor_celery.broker.kick", made.kick)
        monkeypatch.setattr(Scripted, "process", lambda job: made.process(job))
        return made

    return make


@pytest.mark.parametrize(("using", "path"), cases_of(PATHS), indirect=["using"])
def test_a_death_or_a_lost_answer_at_any_step_breaks_no_promise(
    path: QueuePath,
    world: Callable[[Any], QueueWorld],
    figures: Note,
) -> None:
    figures("deaths", **enumerate_crashes(path, world(path.queue)).numbers)
