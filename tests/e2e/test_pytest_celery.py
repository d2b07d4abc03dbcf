"""The seam between pytest-celery and local processes holds: nothing here knows about it."""

from __future__ import annotations

from pytest_celery import RESULT_TIMEOUT, CeleryTestSetup, add


def test_a_stock_worker_answers_and_comes_back_after_a_kill(celery_setup: CeleryTestSetup) -> None:
    worker = celery_setup.worker

    assert add.s(1, 2).apply_async(queue=worker.worker_queue).get(timeout=RESULT_TIMEOUT) == 3

    worker.kill()
    assert worker.container.status == "exited"
    waiting = add.s(3, 4).apply_async(queue=worker.worker_queue)
    worker.restart()
    assert waiting.get(timeout=RESULT_TIMEOUT) == 7
