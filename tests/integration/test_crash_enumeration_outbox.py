"""A sender or relay dies at each of its steps, or never hears that its COMMIT went through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest

from jaiminho_celery import registry
from jaiminho_celery.app import OutboxCelery
from parviraptor_celery import broker
from tests import servers
from tests.faults.crashes import IS_WIDE, Path, cases_of, enumerate_crashes
from tests.faults.figures import Note
from tests.faults.outbox_paths import (
    CONFIG,
    MESSAGE_PATHS,
    PATHS,
    MessageWorld,
    OutboxWorld,
)
from tests.integration.test_celery_messages import drain_queue, make_app


@pytest.fixture(autouse=True)
def _known_again(one_database: str, settings: Any) -> Iterator[None]:
    """Forget the functions of these tests, and let the relay look after one database only."""
    settings.JAIMINHO_CONFIG = {**CONFIG, "DATABASES": [one_database]}
    known = dict(registry._functions)
    yield
    registry._functions.clear()
    registry._functions.update(known)
    broker.close_breaker()


@pytest.mark.parametrize(("using", "path"), cases_of(PATHS), indirect=["using"])
def test_a_death_or_a_lost_answer_at_any_step_breaks_no_promise(
    path: Path,
    one_database: str,
    tmp_path: File,
    monkeypatch: pytest.MonkeyPatch,
    figures: Note,
) -> None:
    world = OutboxWorld(one_database, tmp_path)
    monkeypatch.setattr("parviraptor_celery.broker.kick", world.kick)
    figures("deaths", **enumerate_crashes(path, world).numbers)


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"] if IS_WIDE else ["redis"])
@pytest.mark.parametrize(("using", "path"), cases_of(MESSAGE_PATHS), indirect=["using"])
def test_a_death_repeats_one_batch_of_messages_at_most(
    path: Path,
    kind: str,
    one_database: str,
    queue_name: str,
    tmp_path: File,
    monkeypatch: pytest.MonkeyPatch,
    figures: Note,
) -> None:
    url = servers.require(kind)
    app = make_app(OutboxCelery, url, queue_name)
    world = MessageWorld(one_database, tmp_path, app, url, queue_name)
    monkeypatch.setattr("parviraptor_celery.broker.kick", world.kick)
    monkeypatch.setattr("parviraptor_celery.broker.use", world.use)
    try:
        figures("deaths", **enumerate_crashes(path, world).numbers)
    finally:
        drain_queue(url, queue_name)
