"""The Celery application of the soak; its tasks go through the outbox."""

from __future__ import annotations

import os
from typing import Any

from celery.signals import worker_process_init

from jaiminho_celery.app import OutboxCelery
from jaiminho_celery.schedule import beat_schedule as outbox_schedule
from parviraptor_celery.schedule import beat_schedule as queues_schedule
from tests.soak import bodies, stalls
from tests.soak.project import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.soak.project.settings")

MESSAGES = "soak-messages"
"""A queue of their own: many kicks may wait in the other one."""

app = OutboxCelery("soak")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.on_after_configure.connect
def add_periodic_work(sender: Any, **_: Any) -> None:
    sender.conf.beat_schedule = {**outbox_schedule(), **queues_schedule()}


@worker_process_init.connect
def watch_for_stalls(**_: Any) -> None:
    stalls.watch_for_stalls(bodies.ledger(), settings.LEASE_SECONDS / 2)


@app.task(bind=True, queue=MESSAGES, acks_late=True, reject_on_worker_lost=True)
def receive(self: Any, item: str) -> None:
    """Note the message, and whether the broker itself says that it hands it out again."""
    again = bool((self.request.delivery_info or {}).get("redelivered"))
    with bodies.body(item, note=bodies.REDELIVERED if again else ""):
        pass
