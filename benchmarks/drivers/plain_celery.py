"""Celery without a database: a task that does nothing, and the worker's application."""

from __future__ import annotations

from celery import Celery

from benchmarks.drivers import environment, ledger
from benchmarks.drivers.queue_driver import QueueDriver

app = Celery("benchmarks", broker=environment.broker())
app.conf.update(environment.worker_settings())


@app.task(name=environment.TASK)
def nothing(number: int) -> None:
    ledger.note(number)


class PlainCelery(QueueDriver):
    packages = ("celery", "kombu", "redis", "amqp")

    def enqueue_all(self, jobs: list[tuple[int, int]], is_laned: bool) -> None:
        for number, _ in jobs:
            nothing.delay(number)

    def enqueue_one(self, number: int, lane: int, is_laned: bool) -> None:
        nothing.delay(number)


if __name__ == "__main__":
    PlainCelery().main()
