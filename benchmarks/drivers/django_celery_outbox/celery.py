from __future__ import annotations

from django_celery_outbox import OutboxCelery

from benchmarks.drivers import environment

app = OutboxCelery("benchmarks", broker=environment.broker())
app.conf.update(environment.celery_settings())


@app.task(name=environment.TASK)
def nothing(number: int) -> None:
    """Do nothing: no worker runs here, only what is sent counts."""
