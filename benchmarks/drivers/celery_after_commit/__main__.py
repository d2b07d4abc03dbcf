from __future__ import annotations

from functools import partial

from celery import Celery

from benchmarks.drivers import environment
from benchmarks.drivers.django_driver import DjangoDriver, Send

app = Celery("benchmarks", broker=environment.broker())
app.conf.update(environment.celery_settings())


@app.task(name=environment.TASK)
def nothing(number: int) -> None:
    """Do nothing: no worker runs here, only what is sent counts."""


class CeleryAfterCommit(DjangoDriver):
    settings = "benchmarks.drivers.celery_after_commit.settings"
    packages = ("Django", "celery", "kombu", "redis", "amqp", "psycopg")

    def sender(self, kind: str) -> Send:
        from django.db import transaction

        return lambda number: transaction.on_commit(partial(nothing.delay, number))


if __name__ == "__main__":
    CeleryAfterCommit().main()
