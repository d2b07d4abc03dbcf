"""The application whose messages go through the outbox, and the task that they are about."""

from __future__ import annotations

from benchmarks.drivers import environment
from jaiminho_celery.app import OutboxCelery

app = OutboxCelery("benchmarks", broker=environment.broker())
app.conf.update(environment.celery_settings())


@app.task(name=environment.TASK)
def nothing(number: int) -> None:
    """Do nothing: no worker runs here, only what is sent counts."""
