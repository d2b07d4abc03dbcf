"""The soak tells a worker that Celery gave up from one that our code has ended."""

from __future__ import annotations

from tests.soak.fleet import was_ended_by_celery

GAVE_UP = "2026-01-01 12:00:00,000 7 CRITICAL celery.worker: Unrecoverable error: StopIteration()\n"
OF_KOMBU = '  File "/venv/kombu/transport/redis.py", line 1, in close\n'
OF_OURS = '  File "/src/parviraptor_celery/worker.py", line 1, in ask_for_sweeps\n'


def test_an_error_of_celery_alone_is_celerys() -> None:
    assert was_ended_by_celery(f"{GAVE_UP}{OF_KOMBU}", 7)


def test_an_error_that_came_by_our_code_is_ours() -> None:
    assert not was_ended_by_celery(f"{GAVE_UP}{OF_KOMBU}{OF_OURS}", 7)


def test_what_was_logged_before_it_gave_up_does_not_count() -> None:
    assert was_ended_by_celery(f"{OF_OURS}{GAVE_UP}{OF_KOMBU}", 7)


def test_another_workers_last_words_are_not_its_own() -> None:
    assert not was_ended_by_celery(f"{GAVE_UP}{OF_KOMBU}", 8)
    assert not was_ended_by_celery("", 7)
