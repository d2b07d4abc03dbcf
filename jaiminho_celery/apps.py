from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class JaiminhoCeleryConfig(AppConfig):
    name = "jaiminho_celery"
    label = "jaiminho_celery"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, messages, receivers, sweep, tasks  # noqa: F401

        sweep.let_be_watched()

        autodiscover_modules("outbox")
