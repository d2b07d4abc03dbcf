"""Strict order: ids of a lane are committed in their order, on every engine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction

from parviraptor_celery import ordering
from tests.faults.locks import somebody_waits
from tests.integration.threads import at_once, open_transaction
from tests.testapp.models import LaneJob, StrictJob

CONCURRENT = pytest.mark.parametrize("using", ["postgresql", "mariadb"], indirect=True)
SECONDS = 20.0


@pytest.fixture(autouse=True)
def _no_kicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parviraptor_celery.broker.kick", lambda *_, **__: True)


def wait_for_a_waiter(using: str, ended: threading.Event) -> bool:
    """Return True once another session of this database waits for a lock, False once it ended."""
    deadline = time.monotonic() + SECONDS
    while not ended.wait(0.01) and time.monotonic() < deadline:
        if somebody_waits(using):
            return True
    return False


def is_held_off(using: str, first: Callable[[], object], second: Callable[[], object]) -> bool:
    """Return whether `second` has to wait for the transaction of `first`; both are committed."""
    ended = threading.Event()

    def run() -> None:
        try:
            with transaction.atomic(using=using):
                second()
        finally:
            connections.close_all()
            ended.set()

    with ThreadPoolExecutor(1) as pool, open_transaction(using, first) as held:
        future = pool.submit(run)
        has_waited = wait_for_a_waiter(using, ended)
        held.committed()
        future.result(SECONDS)
    return has_waited


def one_by_one(using: str, shop: str) -> None:
    StrictJob.enqueue(using=using, shop=shop)


def in_bulk(using: str, shop: str) -> None:
    StrictJob.enqueue_many([StrictJob(shop=shop)], using=using)


def by_create(using: str, shop: str) -> None:
    StrictJob.objects.using(using).create(shop=shop)


def by_bulk_create(using: str, shop: str) -> None:
    StrictJob.objects.using(using).bulk_create([StrictJob(shop=shop)])


@CONCURRENT
@pytest.mark.parametrize("write", [one_by_one, in_bulk, by_create, by_bulk_create])
def test_who_writes_to_a_lane_waits_for_those_who_wrote_to_it_before(
    using: str, write: Callable[[str, str], None]
) -> None:
    """Otherwise the second one is committed first, and runs first, though its id is higher."""
    assert is_held_off(using, lambda: one_by_one(using, "a"), lambda: write(using, "a"))
    assert StrictJob.rows(using).count() == 2


@CONCURRENT
def test_lanes_and_queues_do_not_wait_for_each_other(using: str) -> None:
    def write() -> None:
        StrictJob.enqueue(using=using, shop="b")
        LaneJob.enqueue(using=using, shop="a")

    assert not is_held_off(using, lambda: one_by_one(using, "a"), write)


@CONCURRENT
def test_a_savepoint_that_is_rolled_back_does_not_end_the_order(using: str) -> None:
    def first() -> None:
        with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=using):
            StrictJob.enqueue(using=using, shop="a", script="gone")
            raise ZeroDivisionError
        StrictJob.enqueue(using=using, shop="a", script="first")

    assert is_held_off(using, first, lambda: one_by_one(using, "a"))


@CONCURRENT
def test_two_bulks_over_the_same_lanes_do_not_wait_for_each_other_for_ever(using: str) -> None:
    shops = [str(number) for number in range(30)]
    gate = threading.Barrier(2)

    def write(shops: list[str]) -> Callable[[], None]:
        def body() -> None:
            for _ in range(5):
                with transaction.atomic(using=using):
                    gate.wait(SECONDS)
                    StrictJob.enqueue_many([StrictJob(shop=shop) for shop in shops], using=using)

        return body

    at_once(write(shops), write(shops[::-1]))
    assert StrictJob.rows(using).count() == 2 * 5 * 30


def test_a_strict_queue_works_everywhere_in_autocommit_too(using: str) -> None:
    for write in (one_by_one, in_bulk, by_create, by_bulk_create):
        write(using, "a")
    StrictJob.enqueue_many([], using=using)
    assert StrictJob.rows(using).count() == 4


def test_however_many_lanes_the_locks_are_few(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "LOCKS", 4)
    StrictJob.enqueue_many([StrictJob(shop=str(number)) for number in range(300)], using=using)
    assert StrictJob.rows(using).count() == 300
