"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from tests.integration.queue_contract.common import APP, Bodies
from tests.unit.conftest import messages, using_celery


@pytest.fixture
def celery() -> Iterator[Celery]:
    """A broker in this process, to which nobody listens."""
    with using_celery(APP):
        messages(APP)
        yield APP


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> Bodies:
    """Give a queue another body; return the ids of the jobs that it ran for, in order."""

    def replace(queue: Any, body: Callable[[Any], None] = lambda job: None) -> list[int]:
        ran: list[int] = []

        def process(job: Any) -> None:
            ran.append(job.pk)
            body(job)

        monkeypatch.setattr(queue, "process", process)
        return ran

    return replace
