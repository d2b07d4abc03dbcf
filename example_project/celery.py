"""The Celery application, as any Django project has one."""

import os
from typing import Any

from celery import Celery

from jaiminho_celery.schedule import beat_schedule as outbox_schedule
from parviraptor_celery.schedule import beat_schedule as queues_schedule

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

app = Celery("example_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.on_after_configure.connect
def add_periodic_work(sender: Celery, **_: Any) -> None:
    """Give beat the two apps' periodic work; it reads their settings, so it comes after them."""
    sender.conf.beat_schedule = {
        **(sender.conf.beat_schedule or {}),
        **outbox_schedule(),
        **queues_schedule(),
    }
