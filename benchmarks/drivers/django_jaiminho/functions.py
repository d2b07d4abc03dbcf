"""Not in the driver itself: the relay, another process, imports the function by this module."""

from __future__ import annotations

from celery import Celery
from jaiminho.send import save_to_outbox

from benchmarks.drivers import environment

app = Celery("benchmarks", broker=environment.broker())
app.conf.update(environment.celery_settings())


@save_to_outbox
def publish(number: int) -> None:
    app.send_task(environment.TASK, args=(number,), ignore_result=True)
