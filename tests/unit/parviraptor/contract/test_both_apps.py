"""What holds for both apps."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from django.db import transaction

from parviraptor_celery import exceptions
from parviraptor_celery.test import run_queue
from tests.testapp.models import FifoJob, LaneJob, Note
from tests.unit.parviraptor.contract.common import (
    PROCESS,
    QUEUES,
    Kicked,
    eagerly,
    make_base_class,
    statuses,
)

pytestmark = pytest.mark.usefixtures("one_database")


def test_rows_wait_for_a_worker_that_knows_their_queue(
    celery_in_memory: Celery, caplog: pytest.LogCaptureFixture, using: str
) -> None:
    FifoJob.objects.bulk_create([FifoJob()])
    for queue, alias in (("testapp.NotYet", using), ("testapp.FifoJob", "elsewhere")):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            celery_in_memory.tasks[PROCESS](queue=queue, using=alias)
        assert (queue if alias == using else alias) in caplog.text
        assert statuses(FifoJob) == ["NEW"]


def test_bad_input_gets_a_clear_error_and_nothing_is_lost(using: str, kicked: Kicked) -> None:
    kept = LaneJob.enqueue()
    wrong: list[tuple[type[Exception], Callable[[], Any]]] = [
        (exceptions.UnknownField, lambda: LaneJob.enqueue(shops="a")),
        (exceptions.InvalidDependentValue, lambda: LaneJob.enqueue(number="many")),
        (exceptions.UnknownDatabase, lambda: LaneJob.enqueue(using="elsewhere")),
        (exceptions.NotANewJob, lambda: LaneJob.enqueue_many([LaneJob(), FifoJob()])),  # type: ignore[list-item]
        (exceptions.LaneChanged, lambda: LaneJob.objects.update(shop="b")),
        (exceptions.IllegalTransition, lambda: LaneJob.objects.get().retry()),
        (exceptions.InvalidDependentField, lambda: make_base_class("shop")),  # type: ignore[arg-type]
    ]
    for error, call in wrong:
        with transaction.atomic(using=using):  # which can go on after each of them
            with pytest.raises(error):
                call()
            assert [job.pk for job in LaneJob.objects.all()] == [kept.pk]
    assert statuses(LaneJob) == ["NEW"]


def test_logs_carry_ids_and_names_and_never_payloads(
    caplog: pytest.LogCaptureFixture, kicked: Kicked
) -> None:
    secret = "payload-4711"
    words = ("", "fail", "invalid", "ignore", "temporary", "unprocessable")
    with caplog.at_level(logging.DEBUG):
        for number, word in enumerate(words):
            LaneJob.enqueue(script=f"{word} {secret}", shop=secret, number=number)
        run_queue(LaneJob)
    assert statuses(LaneJob) == ["PROCESSED", "FAILED", "FAILED", "IGNORED", "NEW", "NEW"]
    own = [one.getMessage() for one in caplog.records if one.name.startswith("parviraptor_celery")]
    for job in LaneJob.objects.all():
        assert any(f"LaneJob {job.pk}" in line for line in own)
    assert [line for line in own if secret in line] == []


@pytest.mark.parametrize("queue", QUEUES)
def test_under_task_always_eager_everything_works_and_nothing_recurses(
    queue: Any, celery_in_memory: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths: list[int] = []

    def process(job: Any) -> None:
        depths.append(len(inspect.stack(0)))
        if len(depths) < 30:
            queue.enqueue()

    monkeypatch.setattr(queue, "process", process)
    with eagerly(celery_in_memory):
        queue.enqueue()
    assert statuses(queue) == ["PROCESSED"] * 30
    assert max(depths) == max(depths[:3])
    monkeypatch.setattr(queue, "process", lambda job: job.raise_temporary_failure("away"))
    with eagerly(celery_in_memory):
        queue.enqueue()
    assert statuses(queue)[30:] == ["NEW"]
    assert not Note.objects.exists()
