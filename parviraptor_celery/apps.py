from __future__ import annotations

from django.apps import AppConfig


class ParviraptorCeleryConfig(AppConfig):
    name = "parviraptor_celery"
    label = "parviraptor_celery"
    verbose_name = "Job queues"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, database_checks, receivers, task_events, tasks  # noqa: F401
